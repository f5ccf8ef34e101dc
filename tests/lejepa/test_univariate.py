import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate, special, stats

from jlejepa import univariate

N = 64
NAMES = univariate.__all__
each_test = pytest.mark.parametrize("name", NAMES)


@functools.cache
def compiled(name):
  """The statistic and the gradient of its sum, compiled once."""
  test = getattr(univariate, name)
  return jax.jit(test), jax.jit(jax.grad(lambda x: jnp.sum(test(x))))


@pytest.fixture(scope="module")
def x():
  """Skewed, shifted samples and others: `[N, 3]`."""
  skewed, plain, heavy = np.random.default_rng(0).normal(size=(3, N))
  columns = [np.exp(0.6 * skewed) - 0.4, plain, 1.3 * heavy**3 / 3 + 0.2]
  return np.stack(columns, axis=1).astype("float32")


def by_column(oracle):
  return lambda x: [oracle(column) for column in np.float64(x).T]


def integral(x, weight):
  """N times the integral of (F_N - Phi)^2 weight(Phi) over Phi, by pieces."""
  u = np.concatenate([[0], special.ndtr(np.sort(x)), [1]])
  piece = lambda k: integrate.quad(
    lambda p: (k / len(x) - p) ** 2 * weight(p), u[k], u[k + 1], limit=200
  )[0]
  return len(x) * sum(piece(k) for k in range(len(x) + 1))


def watson_oracle(x):
  # By parts, int (F_N - Phi) dPhi = 1/2 - mean Phi(x).
  shift = np.mean(special.ndtr(x)) - 0.5
  return stats.cramervonmises(x, "norm").statistic - len(x) * shift**2


def nll_oracle(x, alpha=0.5):
  n = len(x)
  i = np.arange(1, n + 1)
  x = np.sort(x)
  log_density = stats.beta(i, n + 1 - i).logpdf(special.ndtr(x))
  log_density += stats.norm.logpdf(x)
  tail = math.ceil(alpha * n)
  return -np.mean(log_density[(i <= tail) | (i > n - tail)])


def entropy_oracle(x):
  h = stats.differential_entropy(x, window_length=8, method="vasicek")
  return 0.5 * math.log(2 * math.pi) + 0.5 * np.mean(x**2) - h


vcreg_oracle = lambda x: (
  len(x) * x.mean() ** 2 + (len(x) - 1) * (x.var(ddof=1) - 1) ** 2 / 2
)
ORACLES = {
  "anderson_darling": lambda x: integral(x, lambda p: 1 / (p * (1 - p))),
  "cramer_von_mises": lambda x: stats.cramervonmises(x, "norm").statistic,
  "watson": watson_oracle,
  "shapiro_wilk": lambda x: 1 - stats.shapiro(x).statistic,
  "jarque_bera": lambda x: stats.jarque_bera(x).statistic,
  "vcreg": vcreg_oracle,
  "extended_jarque_bera": lambda x: (
    vcreg_oracle(x) + stats.jarque_bera(x).statistic
  ),
  "moments": lambda x: (
    abs(x.mean())
    + math.exp(-2) * abs((x**2).mean() - 1)
    + math.exp(-3) * abs((x**3).mean())
    + math.exp(-4) * abs((x**4).mean() - 3)
  ),
  "entropy": entropy_oracle,
  "nll": nll_oracle,
}


@pytest.mark.parametrize("name", ORACLES)
def test_equals_the_classical_definition(name, x):
  tolerance = dict(rtol=2e-5, atol=2e-6)
  np.testing.assert_allclose(
    compiled(name)[0](x), by_column(ORACLES[name])(x), **tolerance
  )


@each_test
def test_gradient_equals_differences(name):
  # Well apart, so that no two samples change places, where there is a kink.
  order = np.random.default_rng(2).permutation(N)
  x = np.linspace([-2.1, -1, -4], [2.7, 2, 3], N, dtype="float32")[order]
  value, gradient = compiled(name)
  direction = np.random.default_rng(1).normal(size=x.shape).astype("float32")
  step = 2e-3
  slope = (value(x + step * direction) - value(x - step * direction)) / (
    2 * step
  )
  expected = jnp.sum(gradient(x) * direction, axis=0)
  scale = np.abs(expected).max() + 1
  np.testing.assert_allclose(slope / scale, expected / scale, atol=2e-2)


COLLAPSED = {
  "epps_pulley": 0.40204758 * N,
  # -N - (1/N) sum (2i - 1) 2 log(1/2) = N (2 log 2 - 1).
  "anderson_darling": N * (2 * math.log(2) - 1),
  # sum (1/2 - (2i-1)/2N)^2 = (N^2 - 1) / 12N; with 1/12N, N/12.
  "cramer_von_mises": N / 12,
  "watson": N / 12,
  "shapiro_wilk": 1.0,
  "jarque_bera": 3 * N / 8,
  "vcreg": (N - 1) / 2,
  "extended_jarque_bera": (N - 1) / 2 + 3 * N / 8,
  "moments": math.exp(-2) + 3 * math.exp(-4),
  "entropy": 0.5 * math.log(2 * math.pi) - math.log(1e-5 * N / 16),
  "nll": (
    (N - 1) * math.log(2)
    + 0.5 * math.log(2 * math.pi)
    - math.lgamma(N + 1)
    + 2 / N * sum(math.lgamma(i) for i in range(1, N + 1))
  ),
}


@each_test
def test_collapse_has_the_documented_value_and_a_finite_gradient(name):
  value, gradient = compiled(name)
  zeros = np.zeros((N, 3), "float32")
  np.testing.assert_allclose(value(zeros), COLLAPSED[name], rtol=1e-5)
  assert np.all(np.isfinite(gradient(zeros)))


@each_test
@pytest.mark.parametrize("kind", ["far", "constant", "tiny", "tied", "outlier"])
def test_extreme_samples_give_finite_values_and_gradients(name, kind, x):
  samples = {
    "far": 1e6 * x,
    "constant": np.full_like(x, 1234.567),
    "tiny": 1e-6 * x,
    "tied": np.round(x),
    "outlier": np.where(np.arange(N)[:, None] == 3, np.float32(-1e6), x),
  }[kind]
  value, gradient = compiled(name)
  assert np.all(np.isfinite(value(samples)))
  assert np.all(np.isfinite(gradient(samples)))


@each_test
def test_leading_axes_and_vmap_equal_a_loop(name, x):
  test = compiled(name)[0]
  batch = jnp.stack([x, -0.5 * x])
  loop = jnp.stack([test(one) for one in batch])
  tolerance = dict(rtol=2e-5, atol=2e-6)
  np.testing.assert_allclose(test(batch), loop, **tolerance)
  np.testing.assert_allclose(jax.vmap(test)(batch), loop, **tolerance)


@each_test
def test_the_order_of_the_samples_does_not_matter(name, x):
  value, gradient = compiled(name)
  order = np.random.default_rng(2).permutation(N)
  tolerance = dict(rtol=2e-5, atol=2e-6)
  np.testing.assert_allclose(value(x[order]), value(x), **tolerance)
  np.testing.assert_allclose(
    gradient(x[order]), gradient(x)[order], rtol=1e-3, atol=1e-4
  )


@each_test
def test_gaussian_samples_score_below_others(name):
  # Laplace of unit variance, and a Gaussian of a quarter of the scale for the
  # tests that see scale.
  gaussian = jax.random.normal(jax.random.key(0), (N, 400))
  laplace = jax.random.laplace(jax.random.key(1), (N, 400)) / math.sqrt(2)
  value = lambda x: float(jnp.mean(jax.jit(getattr(univariate, name))(x)))
  if name != "vcreg":
    assert value(gaussian) < value(laplace)
  if name not in ("shapiro_wilk", "jarque_bera"):
    assert value(gaussian) < value(0.25 * gaussian)


def test_shapiro_wilk_and_jarque_bera_ignore_location_and_scale(x):
  for name in ("shapiro_wilk", "jarque_bera"):
    value = compiled(name)[0]
    np.testing.assert_allclose(value(3 * x + 5), value(x), rtol=1e-3, atol=1e-5)


def test_entropy_minimised_over_an_affine_map_is_the_log_of_vasiceks_ratio(x):
  # KL = log(2 pi) / 2 + (a^2 (m + b)^2 + a^2 s^2) / 2 - H - log a is least at
  # b = -m and a = 1/s: log(2 pi) / 2 + 1/2 - H + log s.
  column = np.float64(x[:, 0])
  h = stats.differential_entropy(column, window_length=8, method="vasicek")
  ratio = math.sqrt(2 * math.pi * math.e) * column.std() / math.exp(h)
  standard = ((x - x.mean(0)) / x.std(0)).astype("float32")
  value = univariate.entropy(standard)[0]
  assert value == pytest.approx(math.log(ratio), abs=1e-5)


def test_nll_keeps_only_the_tails_it_is_asked_for(x):
  np.testing.assert_allclose(
    univariate.nll(x, alpha=0.1),
    by_column(functools.partial(nll_oracle, alpha=0.1))(x),
    rtol=2e-5,
  )


@pytest.mark.parametrize(
  "call, message",
  [
    (lambda x: univariate.shapiro_wilk(x[:2]), "at least 3"),
    (lambda x: univariate.shapiro_wilk(x, weights="elfving"), "elfving"),
    (lambda x: univariate.entropy(x[:2]), "at least 3"),
    (lambda x: univariate.entropy(x, window=32), "window"),
    (lambda x: univariate.nll(x, alpha=0.6), "alpha"),
    (lambda x: univariate.moments(x, max_order=0), "max_order"),
  ],
)
def test_bad_options_are_named(call, message, x):
  with pytest.raises(ValueError, match=message):
    call(x)


@each_test
def test_bad_samples_are_refused(name):
  test = getattr(univariate, name)
  for bad in (np.zeros(8, "f"), np.zeros((1, 8), "f"), np.zeros((8, 2), "i")):
    with pytest.raises(ValueError, match="samples"):
      test(bad)


@pytest.mark.slow
@each_test
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_low_precision_samples_give_float32(name, dtype, x):
  samples = jnp.asarray(x, dtype)
  value, gradient = compiled(name)
  assert value(samples).dtype == jnp.float32
  assert gradient(samples).dtype == dtype
