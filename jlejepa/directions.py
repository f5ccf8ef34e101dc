"""Unit directions on which embeddings are projected.

Every sampler has one signature, `(key, dim, num_slices) -> [D, M]`; its
columns are unit vectors, each uniform on the sphere, and the same key gives
the same columns on every device, so that nothing needs to be broadcast.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np

from jlejepa.one_pass import one_pass

SOBOL_BITS = 30


def _check(dim: int, num_slices: int) -> None:
  if dim < 1 or num_slices < 1:
    raise ValueError(
      f"dim and num_slices must be at least 1, got {dim} and {num_slices}"
    )


def _unit_columns(x: jax.Array) -> jax.Array:
  return x / jnp.linalg.norm(x, axis=-2, keepdims=True)


def random_directions(key: jax.Array, dim: int, num_slices: int) -> jax.Array:
  """Draws independent directions, normalised Gaussians (paper Algorithm 1).

  Args:
    key: a typed key; fold the step in for fresh directions at each step.
    dim: `D`, the width of the embedding.
    num_slices: `M`.

  Returns:
    float32 `[D, M]`, unit columns.

  Raises:
    ValueError: if `dim` or `num_slices` is below 1.
  """
  _check(dim, num_slices)
  return _unit_columns(jax.random.normal(one_pass(key), (dim, num_slices)))


def orthogonal_directions(
  key: jax.Array, dim: int, num_slices: int
) -> jax.Array:
  """Draws directions in mutually orthogonal blocks of at most `dim`.

  Each block is the orthogonal factor of a Gaussian matrix, Haar-distributed;
  the last one is cut to fit. Arguments, result and errors are those of
  `random_directions`.
  """
  _check(dim, num_slices)
  width = min(dim, num_slices)
  blocks = math.ceil(num_slices / width)
  gaussian = jax.random.normal(one_pass(key), (blocks, dim, width))
  q, r = jnp.linalg.qr(gaussian)
  # Householder QR fixes the signs of its columns; undo that, or the first
  # coordinate of the first direction would never be uniform on the sphere.
  q = q * jnp.sign(jnp.diagonal(r, axis1=-2, axis2=-1))[:, None, :]
  return jnp.moveaxis(q, 0, 1).reshape(dim, blocks * width)[:, :num_slices]


@functools.lru_cache(maxsize=8)
def _sobol_points(dim: int, num_slices: int) -> np.ndarray:
  from scipy.stats import qmc

  sequence = qmc.Sobol(dim, scramble=False, bits=SOBOL_BITS)
  points = sequence.random_base2(max(0, math.ceil(math.log2(num_slices))))
  return np.round(points[:num_slices] * 2.0**SOBOL_BITS).astype(np.uint32)


def sobol_directions(key: jax.Array, dim: int, num_slices: int) -> jax.Array:
  """Draws low-discrepancy directions (paper Appendix D).

  A Sobol point, through the inverse normal CDF in each coordinate, normalised.
  The Sobol points are built once on the host, while tracing, and enter the
  program as a constant of `4 * D * M` bytes; the key draws a digital shift
  (an exclusive or), which keeps them a net and makes each column uniform.
  A power of two is the best `num_slices`.

  Arguments and result are those of `random_directions`.

  Raises:
    ValueError: if `dim` or `num_slices` is below 1, or if `dim` exceeds the
      21201 dimensions of the Sobol table.
  """
  _check(dim, num_slices)
  points = jnp.asarray(_sobol_points(dim, num_slices).T)
  shift = jax.random.bits(key, (dim, 1), jnp.uint32) >> (32 - SOBOL_BITS)
  # 23 bits and a half are exact in float32 and keep clear of 0 and 1.
  bits = (points ^ shift) >> (SOBOL_BITS - 23)
  uniform = (bits.astype(jnp.float32) + 0.5) * 2.0**-23
  return _unit_columns(jax.scipy.special.ndtri(uniform))
