"""Tests on the distribution function of N(0, 1)."""

import math

import jax
import jax.numpy as jnp
import numpy as np

from jlejepa.samples import as_samples

# Beyond it the hazard comes from its continued fraction, for log_ndtr's own
# derivative cancels there and overflows near -1e4.
TAIL = 4.0
FRACTION_DEPTH = 16


def hazard(t: jax.Array) -> jax.Array:
  """Computes `phi(t) / (1 - Phi(t))` of N(0, 1), to float32 in both tails."""
  far = jnp.maximum(t, TAIL)
  fraction = far
  for depth in range(FRACTION_DEPTH, 0, -1):
    fraction = far + depth / fraction
  near = jnp.minimum(t, TAIL)
  log_density = -0.5 * near**2 - 0.5 * math.log(2 * math.pi)
  ratio = jnp.exp(log_density - jax.scipy.special.log_ndtr(-near))
  return jnp.where(t > TAIL, fraction, ratio)


@jax.custom_jvp
def log_cdf(x: jax.Array) -> jax.Array:
  """Computes `log Phi(x)` with a derivative that is exact in the far tail."""
  return jax.scipy.special.log_ndtr(x)


@log_cdf.defjvp
def _log_cdf_jvp(primals, tangents):
  (x,), (dx,) = primals, tangents
  return log_cdf(x), hazard(-x) * dx


def _ranks(n: int) -> jax.Array:
  return jnp.arange(1, n + 1, dtype=jnp.float32)[:, None]


def anderson_darling(x: jax.Array) -> jax.Array:
  """Computes the Anderson-Darling statistic of each column against N(0, 1).

  `A^2 = -N - (1/N) sum_i (2i - 1) [log Phi(x_(i)) + log Phi(-x_(N+1-i))]`
  (Anderson and Darling 1954, all parameters known); its mean is 1 for Gaussian
  samples. A column of zeros gives `(2 log 2 - 1) N`, about `0.386 N`. The
  official package approximates `log Phi` with a misplaced square root, which is
  off by 0.2 at -5; here it is exact.

  Args:
    x: `[..., N, M]`, any floating type; computed in float32.

  Returns:
    float32 `[..., M]`.

  Raises:
    ValueError: for a wrong shape or fewer than two samples.
  """
  x = jnp.sort(as_samples(x), axis=-2)
  n = x.shape[-2]
  pair = log_cdf(x) + log_cdf(-jnp.flip(x, axis=-2))
  # Each term carries its share of -N, or float32 would lose the difference.
  return -jnp.sum(1 + (2 * _ranks(n) - 1) / n * pair, axis=-2)


def _cdf_distances(x):
  """Gives the sorted samples' CDF less its middle ranks, `[..., N, M]`."""
  x = jnp.sort(as_samples(x), axis=-2)
  n = x.shape[-2]
  return jax.scipy.special.ndtr(x) - (2 * _ranks(n) - 1) / (2 * n)


def cramer_von_mises(x: jax.Array) -> jax.Array:
  """Computes the Cramer-von Mises statistic of each column against N(0, 1).

  `W^2 = 1 / (12 N) + sum_i (Phi(x_(i)) - (2i - 1) / 2N)^2`; its mean is 1/6 for
  Gaussian samples. A column of zeros gives `N / 12`. The official package takes
  a mean for the sum and drops the first term, so that its values are `1 / N` of
  these. Arguments, result and errors are those of `anderson_darling`.
  """
  d = _cdf_distances(x)
  return 1 / (12 * d.shape[-2]) + jnp.sum(d**2, axis=-2)


def watson(x: jax.Array) -> jax.Array:
  """Computes Watson's statistic of each column against N(0, 1).

  `U^2 = W^2 - N (mean Phi(x) - 1/2)^2` (Watson 1961), the Cramer-von Mises
  statistic less its share of location; its mean is 1/12 for Gaussian samples.
  A column of zeros gives `N / 12`. The official package omits the factor `N`,
  as in `cramer_von_mises`. Arguments, result and errors are those of
  `anderson_darling`.
  """
  d = _cdf_distances(x)
  spread = d - jnp.mean(d, axis=-2, keepdims=True)
  return 1 / (12 * d.shape[-2]) + jnp.sum(spread**2, axis=-2)


def nll(x: jax.Array, *, alpha: float = 0.5) -> jax.Array:
  """Computes the mean negative log density of each order statistic.

  `x_(i)` of `N` Gaussian samples has the density `N! / ((i-1)! (N-i)!)
  Phi^(i-1) (1 - Phi)^(N-i) phi` (paper Appendix F); the result is the mean of
  `-log` over `i`. Unlike the other statistics it may be negative, about
  `-0.5 log N` for Gaussian samples. A column of zeros gives `(N - 1) log 2 +
  log(2 pi) / 2 - log N! + (2/N) sum_i log (i-1)!`, about `0.19 N` for many
  samples. The official package returns one value per sample, with NaN for
  those that `alpha` leaves out; here they leave the mean.

  Args:
    x: `[..., N, M]`, any floating type; computed in float32.
    alpha: the share of order statistics to keep in each tail, in (0, 0.5];
      0.5 keeps them all.

  Returns:
    float32 `[..., M]`.

  Raises:
    ValueError: for a wrong shape, fewer than two samples, or a bad `alpha`.
  """
  if not 0 < alpha <= 0.5:
    raise ValueError(f"alpha must be in (0, 0.5], got {alpha}")
  x = jnp.sort(as_samples(x), axis=-2)
  n = x.shape[-2]
  tail = min(math.ceil(alpha * n), n)
  kept = np.union1d(np.arange(tail), np.arange(n - tail, n))
  log_count = np.array(
    [math.lgamma(n + 1) - math.lgamma(i + 1) - math.lgamma(n - i) for i in kept]
  )
  constant = jnp.asarray(log_count - 0.5 * math.log(2 * math.pi), jnp.float32)
  below = jnp.asarray(kept, jnp.float32)[:, None]
  x = x[..., kept, :]
  log_density = (
    constant[:, None]
    + below * log_cdf(x)
    + (n - 1 - below) * log_cdf(-x)
    - 0.5 * x**2
  )
  return -jnp.mean(log_density, axis=-2)
