"""Multivariate tests of normality, written as losses.

Each takes embeddings `[N, D]` (leading axes are mapped over) of any floating
type and returns float32 `[...]`. By default the target is N(0, I) itself, which
is what a loss needs: an affine-invariant test cannot see a collapse. With
`standardize=True` embeddings are first centred and whitened by their own biased
covariance (plus a ridge of 1e-6 of its mean variance, so that collapse stays
finite), which gives the classical, affine-invariant statistics. All but
`mardia_kurtosis` form the `N x N` matrix of pairs.
"""

import functools
import math

import jax
import jax.numpy as jnp

from jlejepa.samples import as_samples

__all__ = [
  "bhep",
  "henze_visagie",
  "henze_zirkler",
  "mardia_kurtosis",
  "mardia_skewness",
]

RIDGE = 1e-6
# Where a Mardia statistic goes over into its logarithm.
LIMIT = 2.0**96
HIGHEST = jax.lax.Precision.HIGHEST


def _over_leading_axes(statistic):
  """Lifts a statistic of `[N, D]` to `[..., N, D]`, with the entry check."""

  @functools.wraps(statistic)
  def lifted(embeddings, *, standardize=False, **options):
    x = as_samples(embeddings)
    n, dim = x.shape[-2:]
    if standardize and n <= dim:
      raise ValueError(
        f"standardize needs more samples than dimensions, got {n} of {dim}"
      )

    def one(sample):
      sample = _whiten(sample) if standardize else sample
      return statistic(sample, **options)

    values = jax.vmap(one)(x.reshape(-1, n, dim))
    return values.reshape(x.shape[:-2])

  return lifted


def _whiten(x):
  x = x - jnp.mean(x, axis=0)
  covariance = jnp.matmul(x.T, x, precision=HIGHEST) / x.shape[0]
  # A ridge, so that collapse is finite: all samples are then at the origin.
  ridge = RIDGE * jnp.mean(jnp.diagonal(covariance)) + RIDGE**2
  factor = jnp.linalg.cholesky(covariance + ridge * jnp.eye(x.shape[1]))
  return jax.scipy.linalg.solve_triangular(factor, x.T, lower=True).T


def _gram(x):
  return jnp.matmul(x, x.T, precision=HIGHEST)


def _squared_distances(x):
  gram = _gram(x - jnp.mean(x, axis=0))
  squares = jnp.diagonal(gram)
  return jnp.maximum(squares[:, None] + squares - 2 * gram, 0)


def _bhep(x, beta):
  n, dim = x.shape
  b2 = beta**2
  pairs = jnp.mean(jnp.exp(-0.5 * b2 * _squared_distances(x)))
  squares = jnp.sum(x**2, axis=-1)
  # log1p and exp: (1 + b2)^(-D/2) by itself underflows for large D.
  cross = jnp.mean(
    jnp.exp(-0.5 * b2 / (1 + b2) * squares - 0.5 * dim * math.log1p(b2))
  )
  return n * (pairs - 2 * cross + math.exp(-0.5 * dim * math.log1p(2 * b2)))


@_over_leading_axes
def bhep(x: jax.Array, *, beta: float = 1.0) -> jax.Array:
  """Computes the Baringhaus-Henze-Epps-Pulley statistic against N(0, I).

  `N integral |phi_N(t) - e^{-|t|^2/2}|^2 w(t) dt`, `w` the density of
  `N(0, beta^2 I)`, in closed form (Henze and Wagner 1997):
  `(1/N) sum_ij e^{-b |x_i - x_j|^2 / 2} - 2 (1+b)^{-D/2} sum_i
  e^{-b |x_i|^2 / (2 + 2b)} + N (1+2b)^{-D/2}` with `b = beta^2`. All zero gives
  `N (1 - 2 (1+b)^{-D/2} + (1+2b)^{-D/2})`. In one dimension with `beta = 1`,
  `sqrt(2 pi)` times this is Epps-Pulley on the whole line. The official package
  omits the factor `N`.

  Args:
    x: `[..., N, D]`, any floating type; computed in float32.
    beta: the bandwidth, above 0. Small, it tests moments; large, point masses.
    standardize: centre and whiten `x` first.

  Returns:
    float32 `[...]`.

  Raises:
    ValueError: for a wrong shape, fewer than two samples, `beta` not positive,
      or `standardize` with `N <= D`.
  """
  if not beta > 0:
    raise ValueError(f"beta must be positive, got {beta}")
  return _bhep(x, beta)


@_over_leading_axes
def henze_zirkler(x: jax.Array) -> jax.Array:
  """Computes the Henze-Zirkler statistic.

  `bhep` with the bandwidth `((2D + 1) N / 4)^{1/(D+4)} / sqrt(2)`, which rises
  with `N` (Henze and Zirkler 1990); theirs with `standardize=True`. The
  official package whitens never, omits the factor `N`, and documents otherwise.
  Arguments, result and errors are those of `bhep`, less `beta`.
  """
  n, dim = x.shape
  return _bhep(x, ((2 * dim + 1) * n / 4) ** (1 / (dim + 4)) / math.sqrt(2))


@_over_leading_axes
def henze_visagie(x: jax.Array, *, gamma: float = 3.0) -> jax.Array:
  """Computes the logarithm of the Henze-Visagie statistic.

  The statistic is `N integral |grad M(t) - t M(t)|^2 e^{-gamma |t|^2} dt`, with
  `M` the empirical moment generating function, in closed form (Henze and
  Visagie 2019): `(pi / gamma)^{D/2} / N sum_jk e^{|p|^2 / 4 gamma} (x_j . x_k -
  |p|^2 / 2 gamma + D / 2 gamma + |p|^2 / 4 gamma^2)` with `p = x_j + x_k`. It
  grows like the exponential of a square, hence the logarithm, which is as good
  a loss and does not overflow. All zero gives
  `log(N D / 2 gamma (pi / gamma)^{D/2})`. The official package drops the power
  of `pi / gamma`, defaults to a `gamma` of 1 and overflows at N(0, 9 I).

  Args:
    x: `[..., N, D]`, any floating type; computed in float32.
    gamma: above 2, as the limit theorems require.
    standardize: centre and whiten `x` first.

  Returns:
    float32 `[...]`.

  Raises:
    ValueError: for a wrong shape, fewer than two samples, `gamma` not above 2,
      or `standardize` with `N <= D`.
  """
  if not gamma > 2:
    raise ValueError(f"gamma must be above 2, got {gamma}")
  n, dim = x.shape
  gram = _gram(x)
  squares = jnp.diagonal(gram)
  p2 = jnp.maximum(squares[:, None] + squares + 2 * gram, 0)
  largest = jax.lax.stop_gradient(jnp.max(p2))
  weight = jnp.exp((p2 - largest) / (4 * gamma))
  factor = gram + (dim - p2 + p2 / (2 * gamma)) / (2 * gamma)
  # An integral of a square, so positive but for rounding.
  total = jnp.maximum(jnp.sum(weight * factor), jnp.finfo(jnp.float32).tiny)
  scale = 0.5 * dim * math.log(math.pi / gamma) - math.log(n)
  return jnp.log(total) + largest / (4 * gamma) + scale


def _continued(value, large):
  """Gives a statistic `s`, beyond LIMIT as `LIMIT (1 + log(s / LIMIT))`.

  Value and slope are continuous, and finite where float32 cannot hold `s`.

  Args:
    value: `s / LIMIT` if `large`, else `s`.
    large: whether it is so counted.
  """
  ratio = jnp.where(large, value, value / LIMIT)
  logarithm = LIMIT * (1 + jnp.log(jnp.maximum(ratio, 1)))
  plain = jnp.where(large, LIMIT * value, value)
  return jnp.where(ratio > 1, logarithm, plain)


@_over_leading_axes
def mardia_skewness(x: jax.Array) -> jax.Array:
  """Computes Mardia's skewness statistic, `(1 / 6N) sum_ij (x_i . x_j)^3`.

  `N/6` times the squared norm of the third moments; with `standardize=True`
  Mardia's (1970) `N b_1 / 6`, chi-squared with `D (D+1) (D+2) / 6` degrees of
  freedom for many Gaussian samples. Zero for all symmetric samples, collapsed
  ones among them: use it beside a test of scale. It grows like the sixth power
  of the length: a value `s` beyond `L = 2^96`, lengths of about `5e4`, becomes
  `L (1 + log(s / L))`, finite for lengths up to `1e9`. Arguments, result and
  errors are those of `bhep`, less `beta`.
  """
  n = x.shape[0]
  gram = _gram(x)
  cube_root = LIMIT ** (1 / 3)
  large = jnp.max(jnp.diagonal(gram)) > cube_root
  gram = jnp.where(large, gram / cube_root, gram)
  return _continued(jnp.sum(gram**3) / (6 * n), large)


@_over_leading_axes
def mardia_kurtosis(x: jax.Array) -> jax.Array:
  """Computes the square of Mardia's kurtosis statistic.

  `N (mean |x|^4 - D (D+2))^2 / (8 D (D+2))`; with `standardize=True` the
  square of Mardia's (1970) `b_2`, normalised, chi-squared with one degree of
  freedom for many Gaussian samples. Squared, for the signed statistic has no
  least value at a Gaussian. All zero gives `N D (D+2) / 8`. It grows like the
  eighth power of the length: a value `s` beyond `L = 2^96`, lengths of about
  `5e3`, becomes `L (1 + log(s / L))`, finite for lengths up to `1e7`.
  Arguments, result and errors are those of `bhep`, less `beta`.
  """
  n, dim = x.shape
  target = dim * (dim + 2)
  excess = jnp.mean(jnp.sum(x**2, axis=-1) ** 2) - target
  square_root = LIMIT**0.5
  large = excess > square_root
  excess = jnp.where(large, excess / square_root, excess)
  return _continued(n * excess**2 / (8 * target), large)
