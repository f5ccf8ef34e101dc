import math

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest
from scipy import special

import jlejepa
from jlejepa.exact import sphere_average


@pytest.mark.parametrize("dim", [1, 2, 3, 8, 64, 512, 2048, 4096])
def test_sphere_average_is_kummers_function(dim):
  # 1F1(1/2; D/2; -u).
  u = np.array([0, 1e-3, 0.5, 4, 50, 300, 2e3, 1e5, 1e8, 1e11], "float32")
  u = u[:5] if dim == 1 else u
  expected = [float(mpmath.hyp1f1(0.5, dim / 2, -float(v))) for v in u]
  value = jax.jit(sphere_average, static_argnums=1)(u, dim)
  np.testing.assert_allclose(value, expected, rtol=2e-6)


def test_sphere_average_is_that_of_random_directions():
  a = jlejepa.random_directions(jax.random.key(0), 5, 200000)
  expected = jnp.mean(jnp.exp(-7.0 * a[0] ** 2))
  assert sphere_average(jnp.float32(7.0), 5) == pytest.approx(
    float(expected), rel=0.01
  )


@pytest.mark.parametrize(
  "name",
  ["gauss_64x8", "shifted_64x8", "zeros_64x8", "student3_64x8", "N2_2x8"],
)
def test_exact_sigreg_agrees_with_the_reference_limit(reference, name):
  expected = reference.values["inf_slices"][name]["inf_slices_exact_R_hyp1f1"]
  value = jlejepa.sigreg_exact(reference.arrays[f"x_{name}"], block=24)
  np.testing.assert_allclose(value, expected, rtol=2e-6)


@pytest.mark.parametrize("n, dim", [(300, 16), (800, 64)])
def test_exact_sigreg_keeps_its_digits_where_two_large_terms_cancel(n, dim):
  # sqrt(2 pi) N is a thousand times the value of Gaussian embeddings.
  z = np.random.default_rng(n).normal(size=(n, dim)).astype("float32")
  average = lambda u: special.hyp1f1(0.5, dim / 2, -u)
  x = np.float64(z)
  pairs = average(((x[:, None] - x) ** 2).sum(-1) / 2).mean()
  singles = average((x**2).sum(-1) / 4).mean()
  root = math.sqrt(2 * math.pi)
  gap = root * (pairs - math.sqrt(2) * singles + math.sqrt(1 / 3))
  np.testing.assert_allclose(jlejepa.sigreg_exact(z), n * gap, rtol=2e-6)


@pytest.mark.parametrize("scale", [0.0, 1e-6, 1.0, 1e6])
def test_exact_sigreg_and_its_gradient_are_finite_at_every_scale(scale):
  z = scale * jax.random.normal(jax.random.key(1), (12, 3))
  value, gradient = jax.jit(jax.value_and_grad(jlejepa.sigreg_exact))(z)
  assert np.isfinite(value)
  assert np.all(np.isfinite(gradient))
  if scale == 0:
    np.testing.assert_allclose(value, 12 * 0.4089230, rtol=1e-6)
    np.testing.assert_allclose(gradient, 0, atol=1e-6)


def test_many_slices_approach_the_exact_value():
  z = jax.random.t(jax.random.key(8), 4.0, (60, 6))
  options = dict(num_slices=20000, t_max=6.0, num_points=33)
  value = jlejepa.sigreg(z, jax.random.key(9), **options)
  np.testing.assert_allclose(value, jlejepa.sigreg_exact(z), rtol=0.01)


def test_exact_sigreg_has_its_null_means_and_ignores_the_block():
  z = jax.random.normal(jax.random.key(10), (4000, 10, 3))
  exact = jax.jit(jlejepa.sigreg_exact, static_argnames=("unbiased", "block"))
  # sqrt(2 pi) (1 - 1 / sqrt(3)) = 1.0594.
  assert exact(z) == pytest.approx(1.0594, abs=0.03)
  assert exact(z, unbiased=True) == pytest.approx(0, abs=0.03)
  one = z[0]
  np.testing.assert_allclose(exact(one, block=3), exact(one), rtol=1e-5)
  np.testing.assert_allclose(
    exact(z[:2]), (exact(z[0]) + exact(z[1])) / 2, rtol=1e-5
  )
