"""SIGReg: a univariate normality test, averaged over random projections."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp

from jlejepa.directions import random_directions
from jlejepa.ecf import epps_pulley, epps_pulley_unbiased
from jlejepa.samples import as_samples

Test = Callable[[jax.Array], jax.Array]
Sampler = Callable[[jax.Array, int, int], jax.Array]


def sliced(
  test: Test, embeddings: jax.Array, directions: jax.Array
) -> jax.Array:
  """Averages a univariate test over given directions.

  The projection is float32 at the highest matrix precision. No gradient flows
  to the directions.

  Args:
    test: `[..., N, M] -> [..., M]`, such as those in `jlejepa.univariate`.
    embeddings: `[..., N, D]`.
    directions: `[D, M]`, unit columns.

  Returns:
    A float32 scalar, the mean over slices and leading axes.

  Raises:
    ValueError: for wrong shapes or fewer than two samples.
  """
  z = as_samples(embeddings)
  if directions.ndim != 2 or directions.shape[0] != z.shape[-1]:
    raise ValueError(
      f"directions need shape [{z.shape[-1]}, M] for embeddings "
      f"{list(z.shape)}, got {list(directions.shape)}"
    )
  a = jax.lax.stop_gradient(directions).astype(jnp.float32)
  return jnp.mean(test(jnp.matmul(z, a, precision=jax.lax.Precision.HIGHEST)))


def sigreg(
  embeddings: jax.Array,
  key: jax.Array,
  *,
  num_slices: int = 1024,
  t_max: float = 3.0,
  num_points: int = 17,
  test: Test | None = None,
  sampler: Sampler = random_directions,
) -> jax.Array:
  """Computes SIGReg, the sliced distance of embeddings to N(0, I).

  Paper Algorithm 1. One statistic per leading index (per view), all on the same
  directions, then the mean. It carries a factor `N` and does not vanish at the
  optimum: Gaussian embeddings give 1.0525 (`jlejepa.ecf.epps_pulley_null`),
  embeddings that are all zero `0.40205 N`. Under jit on a sharded batch the
  statistic is that of the global batch.

  Args:
    embeddings: `[..., N, D]`, any floating type; computed in float32.
    key: a typed key for the directions; give a fresh one at each step.
    num_slices: `M`, the number of directions; the paper recommends 1024.
    t_max: as in `epps_pulley`.
    num_points: as in `epps_pulley`.
    test: another univariate test; `t_max` and `num_points` are then unused.
    sampler: draws the directions: one of `jlejepa.directions`.

  Returns:
    A float32 scalar.

  Raises:
    ValueError: for a wrong shape, fewer than two samples, or as `epps_pulley`.
  """
  z = as_samples(embeddings)
  if test is None:
    test = functools.partial(epps_pulley, t_max=t_max, num_points=num_points)
  return sliced(test, z, sampler(key, z.shape[-1], num_slices))


def sigreg_unbiased(
  embeddings: jax.Array,
  key: jax.Array,
  *,
  num_slices: int = 1024,
  t_max: float = 3.0,
  num_points: int = 17,
  sampler: Sampler = random_directions,
) -> jax.Array:
  """Computes SIGReg without its bias: mean 0 for Gaussian embeddings.

  The U-statistic of paper Theorem 6; see `epps_pulley_unbiased`. Arguments,
  result and errors are those of `sigreg`.
  """
  test = functools.partial(
    epps_pulley_unbiased, t_max=t_max, num_points=num_points
  )
  return sigreg(
    embeddings, key, num_slices=num_slices, test=test, sampler=sampler
  )
