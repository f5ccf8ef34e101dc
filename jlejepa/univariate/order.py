"""Tests on order statistics: their line, and the spacings between them."""

import functools
import math
from statistics import NormalDist

import jax
import jax.numpy as jnp
import numpy as np

from jlejepa.samples import as_samples

VARIANCE_FLOOR = 1e-8
SPACING_FLOOR = 1e-5
# Royston (1992): corrections to the last two weights, in powers of N^(-1/2).
LAST = (0.0, 0.221157, -0.147981, -2.071190, 4.434685, -2.706056)
LAST_BUT_ONE = (0.0, 0.042981, -0.293762, -1.752461, 5.682633, -3.582633)


@functools.lru_cache(maxsize=16)
def _weights(n: int, kind: str) -> np.ndarray:
  """Gives the float64 unit vector of weights `[N]`, increasing and odd."""
  inverse = NormalDist().inv_cdf
  m = np.array([inverse((i - 0.375) / (n + 0.25)) for i in range(1, n + 1)])
  a = m / np.linalg.norm(m)
  if kind == "francia":
    return a
  if n == 3:
    return np.array([-math.sqrt(0.5), 0.0, math.sqrt(0.5)])
  powers = n ** (-0.5 * np.arange(6))
  ends = [a[-1] + powers @ LAST]
  if n > 5:
    ends.append(a[-2] + powers @ LAST_BUT_ONE)
  count = len(ends)
  rest = 1 - 2 * np.sum(np.square(ends))
  inner = m[count:-count]
  a[count:-count] = inner * math.sqrt(rest / (inner @ inner))
  a[-count:] = ends[::-1]
  a[:count] = -a[: -count - 1 : -1]
  return a


def shapiro_wilk(x: jax.Array, *, weights: str = "royston") -> jax.Array:
  """Computes `1 - W` of each column, with the Shapiro-Wilk statistic `W`.

  `W = (sum_i a_i x_(i))^2 / sum_i (x_i - mean)^2`, the squared correlation of
  the sorted samples with the Gaussian scores. It ignores location and scale;
  the sum of squares is floored at `1e-8 N`, and at collapse the value is 1, the
  largest. The official package does not centre the samples, takes
  `1 - sqrt(W)`, and its default scores are asymmetric (Elfving's, with
  `n + 1/4` where `n + 1 - pi/4` belongs).

  Args:
    x: `[..., N, M]`, any floating type; computed in float32.
    weights: "royston", the approximation of Royston (1992), tabulated for `N`
      from 3 to 5000; or "francia", the Blom scores of Shapiro and Francia
      (1972), for any `N`.

  Returns:
    float32 `[..., M]`, in `[0, 1]`.

  Raises:
    ValueError: for a wrong shape, fewer than three samples or unknown weights.
  """
  if weights not in ("royston", "francia"):
    raise ValueError(f"weights must be royston or francia, got {weights!r}")
  x = jnp.sort(as_samples(x, minimum=3), axis=-2)
  n = x.shape[-2]
  a = jnp.asarray(_weights(n, weights), jnp.float32)[:, None]
  x = x - jnp.mean(x, axis=-2, keepdims=True)
  square = jnp.maximum(jnp.mean(x**2, axis=-2, keepdims=True), VARIANCE_FLOOR)
  u = x / jnp.sqrt(n * square)
  along = jnp.sum(a * u, axis=-2)
  # The residual, not 1 - along^2, which would lose digits near a perfect fit.
  residual = jnp.sum((u - a * along[..., None, :]) ** 2, axis=-2)
  return residual + (1 - jnp.sum(u**2, axis=-2))


def entropy(x: jax.Array, *, window: int | None = None) -> jax.Array:
  """Estimates the divergence of each column from N(0, 1), from its spacings.

  `KL = log(2 pi) / 2 + mean x^2 / 2 - H`, with Vasicek's (1976) entropy
  `H = (1/N) sum_i log(N / 2w (x_(i+w) - x_(i-w)))`, indices clamped to
  `1 .. N`. In nats, biased upwards by `O(log(N) / N)` or more: compare equal
  `N` and `window`. Minimised over location and scale it is
  `log(sqrt(2 pi e) s) - H`, the logarithm of Vasicek's ratio, which the
  official package returns (with `2w` boundary spacings a side, for `w`): a
  ratio that collapse takes to 0, below a Gaussian's 1. Here spacings are
  floored at 1e-5, and a column of zeros gives
  `log(2 pi) / 2 - log(1e-5 N / 2w)`, above a Gaussian's 0 while `N < 2e5 w`.

  Args:
    x: `[..., N, M]`, any floating type; computed in float32.
    window: `w`, from 1 to below `N / 2`; `floor(sqrt(N) + 1/2)` by default, or
      the most allowed.

  Returns:
    float32 `[..., M]`.

  Raises:
    ValueError: for a wrong shape, fewer than three samples or a bad `window`.
  """
  x = jnp.sort(as_samples(x, minimum=3), axis=-2)
  n = x.shape[-2]
  if window is None:
    window = min(math.floor(math.sqrt(n) + 0.5), (n - 1) // 2)
  if not 1 <= window < n / 2:
    raise ValueError(
      f"window must be from 1 to below N / 2 = {n / 2}, got {window}"
    )
  index = np.arange(n)
  above = x[..., np.minimum(index + window, n - 1), :]
  below = x[..., np.maximum(index - window, 0), :]
  spacing = jnp.maximum(above - below, SPACING_FLOOR)
  estimate = jnp.mean(jnp.log(n / (2 * window) * spacing), axis=-2)
  energy = jnp.mean(x**2, axis=-2)
  return 0.5 * math.log(2 * math.pi) + 0.5 * energy - estimate
