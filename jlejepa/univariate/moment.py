"""Tests on the moments of N(0, 1)."""

import math

import jax
import jax.numpy as jnp

from jlejepa.samples import as_samples

VARIANCE_FLOOR = 1e-8


def _centred(x):
  x = x - jnp.mean(x, axis=-2, keepdims=True)
  # Again, for the mean of equal values need not equal them in float32.
  return x - jnp.mean(x, axis=-2, keepdims=True)


def vcreg(x: jax.Array) -> jax.Array:
  """Computes the variance-mean statistic of each column against N(0, 1).

  `N m^2 + (N - 1) (s^2 - 1)^2 / 2` with the mean `m` and the unbiased variance
  `s^2`: the sum of two squares, each nearly chi-squared with one degree of
  freedom for Gaussian samples, so that its mean is nearly 2. Over slices it
  asks for zero mean and identity covariance, as VICReg does. A column of zeros
  gives `(N - 1) / 2`. The official package divides the first term by `s^2`,
  which is NaN at collapse and rewards a larger variance; the variance of the
  target is known to be 1.

  Args:
    x: `[..., N, M]`, any floating type; computed in float32.

  Returns:
    float32 `[..., M]`.

  Raises:
    ValueError: for a wrong shape or fewer than two samples.
  """
  x = as_samples(x)
  n = x.shape[-2]
  mean = jnp.mean(x, axis=-2)
  variance = jnp.sum(_centred(x) ** 2, axis=-2) / (n - 1)
  return n * mean**2 + 0.5 * (n - 1) * (variance - 1) ** 2


def jarque_bera(x: jax.Array) -> jax.Array:
  """Computes the Jarque-Bera statistic of each column.

  `N/6 (S^2 + (K - 3)^2 / 4)`, with skewness `S` and kurtosis `K` from biased
  moments (Jarque and Bera 1980); chi-squared with two degrees of freedom for
  many Gaussian samples. It ignores location and scale. The variance is floored
  at 1e-8, and at collapse the value is `3N/8`. The official package takes the
  unbiased variance. Arguments, result and errors are those of `vcreg`.
  """
  x = _centred(as_samples(x))
  variance = jnp.mean(x**2, axis=-2, keepdims=True)
  z = x / jnp.sqrt(jnp.maximum(variance, VARIANCE_FLOOR))
  skewness = jnp.mean(z**3, axis=-2)
  kurtosis = jnp.mean(z**4, axis=-2)
  return x.shape[-2] / 6 * (skewness**2 + (kurtosis - 3) ** 2 / 4)


def extended_jarque_bera(x: jax.Array) -> jax.Array:
  """Computes `vcreg` plus `jarque_bera` of each column (paper Section 4).

  The first four moments against those of N(0, 1). A column of zeros gives
  `(N - 1) / 2 + 3N/8`. Arguments, result and errors are those of `vcreg`.
  """
  return vcreg(x) + jarque_bera(x)


def moments(x: jax.Array, *, max_order: int = 4) -> jax.Array:
  """Computes the weighted distance of the raw moments to those of N(0, 1).

  `|m_1| + sum_{k=2}^{max_order} e^-k |m_k - E z^k|`, with `m_k` the mean of
  `x^k` (paper Section 4). No finite number of moments identifies a
  distribution (paper Theorem 3). A column of zeros gives
  `sum_{k even} e^-k (k - 1)!!`, 0.190 by default. Under several processes the
  official package divides local moments by the number of processes; here, as
  everywhere, means are of the whole batch.

  Args:
    x: `[..., N, M]`, any floating type; computed in float32, in which `x^k`
      overflows beyond `1e38`.
    max_order: the highest moment, at least 1.

  Returns:
    float32 `[..., M]`.

  Raises:
    ValueError: for a wrong shape, fewer than two samples or no moment.
  """
  if max_order < 1:
    raise ValueError(f"max_order must be at least 1, got {max_order}")
  x = as_samples(x)
  distance = jnp.abs(jnp.mean(x, axis=-2))
  for k in range(2, max_order + 1):
    target = math.prod(range(1, k, 2)) if k % 2 == 0 else 0
    distance += math.exp(-k) * jnp.abs(jnp.mean(x**k, axis=-2) - target)
  return distance
