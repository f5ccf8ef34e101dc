"""Univariate tests against published weights, means and official values."""

import functools

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest
from scipy import stats

from jlejepa import univariate
from jlejepa.univariate.distribution import log_cdf


@pytest.mark.parametrize(
  "name, mean",
  [
    ("anderson_darling", 1),
    ("cramer_von_mises", 1 / 6),
    ("watson", 1 / 12),
    # E N m^2 = 1; Var s^2 = 2 / (N - 1), so that the second mean is 1 too.
    ("vcreg", 2),
  ],
)
def test_null_mean_is_the_classical_one(name, mean):
  x = jax.random.normal(jax.random.key(3), (20, 20000))
  value = jnp.mean(jax.jit(getattr(univariate, name))(x))
  assert value == pytest.approx(mean, rel=0.03)


def test_log_cdf_and_its_derivative_are_right_in_both_tails():
  points = np.array(
    [-1e6, -300, -30, -8, -4.01, -3.99, -3, -1, 0, 2, 9], "float32"
  )
  mpmath.mp.dps = 40
  hazard = lambda t: mpmath.npdf(t) / mpmath.ncdf(t)
  # mpmath underflows at -1e6, where the hazard is 1e6 + 1e-6.
  expected = [1e6] + [float(hazard(mpmath.mpf(float(t)))) for t in points[1:]]
  slope = jax.vmap(jax.grad(log_cdf))(points)
  np.testing.assert_allclose(slope, expected, rtol=5e-6, atol=1e-18)
  values = [float(mpmath.log(mpmath.ncdf(float(t)))) for t in points[1:]]
  np.testing.assert_allclose(log_cdf(points)[1:], values, rtol=5e-6)


@pytest.mark.parametrize("n", [3, 4, 5, 6, 11, 500])
def test_shapiro_wilk_has_roystons_weights_at_every_size(n):
  x = np.random.default_rng(n).normal(size=n).astype("float32")
  np.testing.assert_allclose(
    univariate.shapiro_wilk(x[:, None])[0],
    1 - stats.shapiro(np.float64(x)).statistic,
    rtol=1e-4,
    atol=2e-6,
  )


@pytest.mark.parametrize(
  "fixture",
  ["gauss_64x8", "shifted_64x8", "student3_64x8", "zeros_64x8", "N2_2x8"],
)
def test_moments_and_variances_agree_with_the_official_package(
  reference, fixture
):
  x = reference.arrays[f"x_{fixture}"]
  official = reference.values["univariate"][fixture]
  for order in (2, 4, 6):
    ours = univariate.moments(x, max_order=order)
    np.testing.assert_allclose(ours, official[f"Moments_k{order}"], rtol=2e-6)
  if fixture == "zeros_64x8":
    return  # where the official VCReg is NaN
  # Theirs divides the first term by the variance.
  n, mean, variance = len(x), x.mean(0), x.var(0, ddof=1)
  ours = univariate.vcreg(x) + n * mean**2 * (1 / variance - 1)
  np.testing.assert_allclose(ours, official["VCReg"], rtol=2e-6)


@pytest.mark.parametrize("fixture", ["gauss_64x8", "N2_2x8"])
def test_official_values_follow_from_ours_by_their_known_defects(
  reference, fixture
):
  x = reference.arrays[f"x_{fixture}"]
  official = reference.values["univariate"][fixture]
  n = len(x)
  # The official log-cdf is an approximation, good to some 1e-5 inside (-3, 3).
  close = functools.partial(np.testing.assert_allclose, rtol=5e-5, atol=2e-5)
  inside = np.abs(x).max(0) < 3  # where the official log-cdf is right
  ours = univariate.anderson_darling(x)
  close(ours[inside], np.array(official["AndersonDarling"])[inside])
  for name, key in {
    "cramer_von_mises": "CramerVonMises", "watson": "Watson"
  }.items():  # fmt: skip
    ours = getattr(univariate, name)(x)
    close((ours - 1 / (12 * n)) / n, official[key], rtol=2e-6, atol=1e-7)
  ours = univariate.nll(x)
  close(ours[inside], np.array(official["NLL_alpha0.5_mean"])[inside])
  if n > 2:
    w = 1 - univariate.shapiro_wilk(x, weights="francia")
    uncentred = np.sqrt(w * x.var(0) / (x**2).mean(0))
    close(1 - uncentred, official["ShapiroWilk_blom_sf"], rtol=2e-6, atol=1e-6)
