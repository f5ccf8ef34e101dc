import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate

from jlejepa import multivariate

NAMES = multivariate.__all__
each_test = pytest.mark.parametrize("name", NAMES)
N, D = 40, 3


@functools.cache
def compiled(name):
  test = getattr(multivariate, name)
  return jax.jit(test), jax.jit(jax.grad(lambda x: jnp.sum(test(x))))


@pytest.fixture(scope="module")
def x():
  generator = np.random.default_rng(0)
  mixing = np.array([[0.8, 0.2, 0.0], [0.0, 0.6, -0.3], [0.1, 0.0, 0.7]])
  return (generator.laplace(size=(N, D)) @ mixing + 0.3).astype("float32")


def squares(x):
  """Squared norms, squared distances and inner products, in float64."""
  x = np.float64(x)
  distances = ((x[:, None] - x[None]) ** 2).sum(-1)
  return (x**2).sum(-1), distances, x @ x.T


def mahalanobis(x):
  """The same quantities in the metric of the inverse biased covariance."""
  x = np.float64(x) - np.float64(x).mean(0)
  metric = np.linalg.inv(x.T @ x / len(x))
  inner = x @ metric @ x.T
  own = np.diag(inner)
  return own, own[:, None] + own - 2 * inner, inner


def bhep_oracle(parts, beta=1.0, dim=D):
  own, distances, _ = parts
  n, b = len(own), beta**2
  pairs = np.exp(-b * distances / 2).sum() / n
  cross = 2 * (1 + b) ** (-dim / 2) * np.exp(-b * own / (2 + 2 * b)).sum()
  return pairs - cross + n * (1 + 2 * b) ** (-dim / 2)


def henze_zirkler_oracle(parts):
  beta = ((2 * D + 1) * N / 4) ** (1 / (D + 4)) / math.sqrt(2)
  return bhep_oracle(parts, beta)


def henze_visagie_oracle(parts, g=3.0):
  own, _, inner = parts
  p2 = own[:, None] + own + 2 * inner
  factor = inner - p2 / (2 * g) + D / (2 * g) + p2 / (4 * g**2)
  total = (np.exp(p2 / (4 * g)) * factor).sum() / len(own)
  return math.log((math.pi / g) ** (D / 2) * total)


ORACLES = {
  "bhep": bhep_oracle,
  "henze_zirkler": henze_zirkler_oracle,
  "henze_visagie": henze_visagie_oracle,
  "mardia_skewness": lambda parts: N / 6 * (parts[2] ** 3).mean(),
  "mardia_kurtosis": lambda parts: (
    N * ((parts[0] ** 2).mean() - D * (D + 2)) ** 2 / (8 * D * (D + 2))
  ),
}


@each_test
def test_equals_the_definition_with_and_without_whitening(name, x):
  test = getattr(multivariate, name)
  np.testing.assert_allclose(test(x), ORACLES[name](squares(x)), rtol=1e-4)
  whitened = test(x, standardize=True)
  np.testing.assert_allclose(
    whitened, ORACLES[name](mahalanobis(x)), rtol=1e-4, atol=1e-4
  )


def test_bhep_is_the_integral_that_defines_it(x):
  # N E |phi_N(t) - e^{-t^2/2}|^2 over t ~ N(0, beta^2), in one dimension.
  column, beta = np.float64(x[:, :1]), 0.7

  def integrand(t):
    gap = np.exp(1j * t * column).mean() - math.exp(-(t**2) / 2)
    density = math.exp(-(t**2) / (2 * beta**2)) / math.sqrt(2 * math.pi)
    return N * abs(gap) ** 2 * density / beta

  expected = integrate.quad(integrand, -8, 8, limit=200)[0]
  value = multivariate.bhep(x[:, :1], beta=beta)
  np.testing.assert_allclose(value, expected, rtol=2e-5)


def test_henze_visagie_is_the_logarithm_of_the_integral_that_defines_it(x):
  column, gamma = np.float64(x[:, :1]), 2.5

  def integrand(t):
    weights = np.exp(t * column)
    gap = (weights * column).mean() - t * weights.mean()
    return N * gap**2 * math.exp(-gamma * t**2)

  expected = math.log(integrate.quad(integrand, -12, 12, limit=400)[0])
  value = multivariate.henze_visagie(x[:, :1], gamma=gamma)
  np.testing.assert_allclose(value, expected, rtol=1e-4)


@each_test
def test_whitened_statistics_are_affine_invariant(name, x):
  test = functools.partial(getattr(multivariate, name), standardize=True)
  matrix = np.array([[2.0, 0.3, 0.0], [0.1, 0.5, 0.2], [-0.4, 0.0, 1.5]], "f")
  np.testing.assert_allclose(test(x @ matrix + 4), test(x), rtol=2e-3)


@each_test
def test_plain_statistics_are_rotation_invariant(name, x):
  rotation = np.linalg.qr(np.random.default_rng(1).normal(size=(D, D)))[0]
  test = compiled(name)[0]
  np.testing.assert_allclose(test(x @ np.float32(rotation)), test(x), rtol=1e-4)


COLLAPSED = {
  "bhep": N * (1 - 2 * 2 ** (-D / 2) + 3 ** (-D / 2)),
  "henze_zirkler": henze_zirkler_oracle(squares(np.zeros((N, D)))),
  "henze_visagie": math.log(N * D / 6 * (math.pi / 3) ** (D / 2)),
  "mardia_skewness": 0.0,
  "mardia_kurtosis": N * D * (D + 2) / 8,
}


@pytest.mark.slow
@each_test
@pytest.mark.parametrize("standardize", [False, True])
def test_collapse_has_the_documented_value_and_a_finite_gradient(
  name, standardize
):
  test = functools.partial(getattr(multivariate, name), standardize=standardize)
  zeros = np.zeros((N, D), "float32")
  value, gradient = jax.jit(jax.value_and_grad(test))(zeros)
  np.testing.assert_allclose(value, COLLAPSED[name], rtol=1e-5)
  assert np.all(np.isfinite(gradient))
  line = zeros + np.linspace(-1, 1, N, dtype="float32")[:, None]
  assert np.all(np.isfinite(jax.jit(jax.grad(test))(line)))


@each_test
def test_gradient_equals_differences(name, x):
  value, gradient = compiled(name)
  direction = np.random.default_rng(1).normal(size=x.shape).astype("float32")
  step = 3e-3
  slope = (value(x + step * direction) - value(x - step * direction)) / step / 2
  expected = jnp.sum(gradient(x) * direction)
  assert slope == pytest.approx(float(expected), rel=0.02, abs=0.02)


@each_test
def test_embeddings_of_length_1e6_give_finite_values_and_gradients(name, x):
  value, gradient = compiled(name)
  assert np.isfinite(value(1e6 * x))
  assert np.all(np.isfinite(gradient(1e6 * x)))


@pytest.mark.parametrize(
  "name, power", [("mardia_skewness", 6), ("mardia_kurtosis", 8)]
)
def test_mardia_statistics_go_over_into_their_logarithm(name, power, x):
  value = compiled(name)[0]
  # In proportion to the power of the scale, as the definition says: where it
  # passes L = 2^96, the logarithm L (1 + log(s / L)) takes over.
  limit = 2.0**96
  unit = float(ORACLES[name](squares(1e3 * np.float64(x)))) * 1e-3**power
  crossing = (limit / unit) ** (1 / power)
  for factor in (0.5, 0.9, 1.1, 4.0, 50.0):
    scale = factor * crossing
    classical = math.log(unit / limit) + power * math.log(scale)
    expected = math.exp(classical) if classical < 0 else 1 + classical
    found = value(np.float32(scale * np.float64(x)))
    np.testing.assert_allclose(found, limit * expected, rtol=1e-5)


@each_test
def test_wide_embeddings_are_finite(name):
  wide = jax.random.normal(jax.random.key(1), (32, 2048))
  assert np.isfinite(compiled(name)[0](wide))


def test_mardia_statistics_have_their_classical_null_means():
  # N b_1 / 6 has D (D+1) (D+2) / 6 = 4 degrees of freedom at D = 2; the
  # square of the normalised kurtosis has one.
  x = jax.random.normal(jax.random.key(2), (400, 400, 2))
  means = [
    float(jnp.mean(jax.jit(functools.partial(test, standardize=True))(x)))
    for test in (multivariate.mardia_skewness, multivariate.mardia_kurtosis)
  ]
  assert means == pytest.approx([4, 1], rel=0.2)


def test_gaussian_embeddings_score_below_others():
  gaussian = jax.random.normal(jax.random.key(3), (30, 128, 4))
  heavy = jax.random.t(jax.random.key(4), 3.0, (30, 128, 4))
  for name in NAMES:
    test = compiled(name)[0]
    assert jnp.mean(test(gaussian)) < jnp.mean(test(heavy))


@each_test
def test_leading_axes_equal_a_loop(name, x):
  test = compiled(name)[0]
  batch = jnp.stack([x, 0.5 * x])
  loop = jnp.stack([test(one) for one in batch])
  np.testing.assert_allclose(test(batch), loop, rtol=1e-4)
  assert test(batch[None]).shape == (1, 2)


@pytest.mark.parametrize(
  "fixture",
  ["gauss_64x8", "shifted_64x8", "student3_64x8", "zeros_64x8", "N2_2x8"],
)
def test_agrees_with_the_official_package(reference, fixture):
  x = reference.arrays[f"x_{fixture}"]
  official = reference.values["multivariate"][fixture]
  n, dim = x.shape
  # With a small bandwidth terms of size 1 cancel to 0.002 of zeros.
  for beta in ("1",) if fixture == "zeros_64x8" else ("0.1", "1"):
    np.testing.assert_allclose(
      multivariate.bhep(x, beta=float(beta)) / n,
      official[f"BHEP_b{beta}_f64"],
      rtol=2e-6,
      atol=2e-7,
    )
  np.testing.assert_allclose(
    multivariate.henze_zirkler(x) / n, official["HZ"], rtol=2e-6
  )
  power = dim / 2 * math.log(math.pi / 3)
  np.testing.assert_allclose(
    multivariate.henze_visagie(x) - power,
    math.log(official["HV_g3"]),
    rtol=2e-6,
  )


@pytest.mark.parametrize(
  "call, message",
  [
    (lambda: multivariate.bhep(np.zeros((4, 2), "f"), beta=0.0), "beta"),
    (lambda: multivariate.henze_visagie(np.ones((4, 2), "f"), gamma=2.0), "2"),
    (lambda: multivariate.bhep(np.zeros((1, 2), "f")), "at least 2 samples"),
    (lambda: multivariate.bhep(np.zeros(4, "f")), "shape"),
    (
      lambda: multivariate.mardia_skewness(
        np.zeros((4, 4), "f"), standardize=True
      ),
      "more samples than dimensions",
    ),
  ],
)
def test_bad_input_is_named(call, message):
  with pytest.raises(ValueError, match=message):
    call()
