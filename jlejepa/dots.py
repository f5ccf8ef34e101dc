"""Matrix products in float32, or in bfloat16 with float32 accumulation."""

import jax.numpy as jnp
from jax import lax


def bf16_dot_general(x, y, dimension_numbers, precision=None, **_):
  """Multiplies in bfloat16 and accumulates in float32.

  On CPU only a bfloat16 product with a float32 result reaches the matrix
  units; a bfloat16 result is computed as float32 with conversions around it.
  """
  del precision
  return lax.dot_general(
    x.astype(jnp.bfloat16),
    y.astype(jnp.bfloat16),
    dimension_numbers,
    preferred_element_type=jnp.float32,
  )


DOTS = {"float32": lax.dot_general, "bfloat16": bf16_dot_general}
