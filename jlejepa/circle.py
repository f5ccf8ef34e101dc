"""Cosine and sine at once, from products and sums alone."""

import jax
import jax.numpy as jnp
import numpy as np

# A quarter turn as a sum, whose first parts have few bits (Cody and Waite): a
# small multiple of them is exact.
QUARTER = (1.5703125, 4.837512969970703e-4, 7.54978995489188e-8)
# For angles up to half a quarter turn (Cephes).
COSINE = (2.443315711809948e-5, -1.388731625493765e-3, 4.166664568298827e-2)
SINE = (-1.9515295891e-4, 8.3321608736e-3, -1.6666654611e-1)


def cos_sin(x: jax.Array, scale: float = 1.0) -> tuple[jax.Array, jax.Array]:
  """Computes `cos(scale * x)` and `sin(scale * x)` in float32.

  As exact as XLA's own, up to angles of some thousands, and faster on a CPU
  (`python -m benchmarks.sigreg --parts`).
  """
  angle = x * np.float32(scale)
  quarters = jnp.round(angle * np.float32(2 / np.pi))
  for part in QUARTER:
    angle = angle - quarters * np.float32(part)
  square = angle * angle
  cosine = _horner(COSINE, square) * square * square + (1 - 0.5 * square)
  sine = _horner(SINE, square) * square * angle + angle
  quarters = quarters.astype(jnp.int32)
  swap = (quarters & 1).astype(bool)
  cosine, sine = jnp.where(swap, sine, cosine), jnp.where(swap, cosine, sine)
  negate = lambda part, count: jnp.where((count & 2).astype(bool), -part, part)
  return negate(cosine, quarters + 1), negate(sine, quarters)


def _horner(coefficients, x):
  total = np.float32(coefficients[0])
  for coefficient in coefficients[1:]:
    total = total * x + np.float32(coefficient)
  return total
