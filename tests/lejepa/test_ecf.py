import functools
import math

import hypothesis
import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate

import jlejepa
from jlejepa import ecf
from jlejepa.ecf import characteristic_function, epps_pulley_null

FIXTURES = [
  "gauss_64x8", "shifted_64x8", "zeros_64x8", "student3_64x8", "N2_2x8"
]  # fmt: skip
matrices = hnp.arrays(np.float32, (5, 3), elements=st.floats(-12, 12, width=32))
quick = hypothesis.settings(max_examples=30, deadline=None)


def oracle(x, t_max=3.0, num_points=17):
  """Epps-Pulley and the gradient of its sum, in float64 and term by term."""
  x = np.asarray(x, np.float64)
  n = len(x)
  t = np.linspace(-t_max, t_max, 2 * num_points - 1)
  weight = np.full(t.shape, t[1] - t[0])
  weight[[0, -1]] /= 2
  weight = (weight * np.exp(-(t**2) / 2))[:, None]
  phase = np.exp(1j * t[:, None, None] * x)
  gap = phase.mean(axis=1) - np.exp(-(t**2) / 2)[:, None]
  value = n * (weight * np.abs(gap) ** 2).sum(axis=0)
  slope = 2 * np.real(np.conj(gap)[:, None] * 1j * t[:, None, None] * phase)
  return value, (weight[:, None] * slope).sum(axis=0)


total = lambda x, **options: jnp.sum(jlejepa.epps_pulley(x, **options))
# Compiled, for run eagerly a scan compiles anew at each call.
static = ("t_max", "num_points")
epps_pulley = jax.jit(jlejepa.epps_pulley, static_argnames=static)
unbiased = jax.jit(jlejepa.epps_pulley_unbiased)
gradient_of = jax.jit(jax.grad(total), static_argnames=static)


@pytest.mark.parametrize("t_max, num_points", [(3.0, 17), (5.0, 41), (1.0, 3)])
def test_value_and_gradient_equal_a_float64_sum(t_max, num_points):
  x = 2 * jax.random.normal(jax.random.key(0), (50, 6)) + 0.5
  options = dict(t_max=t_max, num_points=num_points)
  value, gradient = oracle(x, **options)
  np.testing.assert_allclose(epps_pulley(x, **options), value, rtol=2e-6)
  np.testing.assert_allclose(gradient_of(x, **options), gradient, atol=3e-6)


@pytest.mark.parametrize("name", FIXTURES)
def test_columns_and_slices_agree_with_the_official_package(reference, name):
  x = reference.arrays[f"x_{name}"]
  values = reference.values
  for key, options in {
    "EppsPulley": {},
    "EppsPulley_t5_n17": dict(t_max=5.0),
    "EppsPulley_t1_n5": dict(t_max=1.0, num_points=5),
    "EppsPulley_t5_n41": dict(t_max=5.0, num_points=41),
  }.items():
    np.testing.assert_allclose(
      # Both are float32, each up to 1.5e-6 from float64 (heavy tails, n = 41).
      epps_pulley(x, **options),
      values["univariate"][name][key],
      rtol=3e-6,
    )
  np.testing.assert_allclose(
    jlejepa.sliced(epps_pulley, x, reference.arrays["A_8x32"]),
    values["sliced"][name]["EppsPulley"],
    rtol=2e-6,
  )


@pytest.mark.parametrize("name", FIXTURES)
def test_gradients_agree_with_the_official_package(reference, name):
  x = jnp.asarray(reference.arrays[f"x_{name}"])
  a = reference.arrays["A_8x32"]
  by_slice = jax.grad(lambda x: jlejepa.sliced(epps_pulley, x, a))(x)
  np.testing.assert_allclose(
    by_slice, reference.arrays[f"gradsliced_{name}"], atol=1e-6
  )
  np.testing.assert_allclose(
    gradient_of(x), reference.arrays[f"gradcol_{name}"], atol=1e-6
  )


def test_a_fine_grid_gives_the_closed_form_on_the_line():
  # int |phi_N - phi|^2 phi over R, by Gaussian integrals of each product.
  x = np.asarray(jax.random.laplace(jax.random.key(1), (40, 1)), np.float64)
  pairs = np.exp(-((x - x.T) ** 2) / 2).mean() * math.sqrt(2 * math.pi)
  cross = np.exp(-(x**2) / 4).mean() * 2 * math.sqrt(math.pi)
  expected = 40 * (pairs - cross + math.sqrt(2 * math.pi / 3))
  value = epps_pulley(x.astype("float32"), t_max=8.0, num_points=65)
  np.testing.assert_allclose(value, expected, rtol=1e-5)


def test_gaussian_samples_of_any_size_have_the_null_mean():
  # E N |phi_N - phi|^2 = 1 - phi^2; the trapezoid of (1 - phi^2) phi is 1.05246
  # and its integral sqrt(2 pi) (1 - 1 / sqrt(3)) = 1.05943.
  assert epps_pulley_null() == pytest.approx(1.0524641547991607, rel=1e-9)
  line = integrate.quad(
    lambda t: (1 - math.exp(-(t**2))) * math.exp(-(t**2) / 2), -9, 9
  )[0]
  assert epps_pulley_null(t_max=9.0, num_points=65) == pytest.approx(line)
  for n in (2, 50):
    x = jax.random.normal(jax.random.key(n), (n, 20000))
    assert jnp.mean(epps_pulley(x)) == pytest.approx(1.0525, abs=0.03)
    assert jnp.mean(unbiased(x)) == pytest.approx(0, abs=0.03)


def test_the_unbiased_form_leaves_out_the_pairs_of_a_sample_with_itself():
  x = np.asarray(jax.random.normal(jax.random.key(5), (9, 1)), np.float64)
  t = np.linspace(-3, 3, 33)[:, None]
  weight = np.full(33, 3 / 16) * np.exp(-(t[:, 0] ** 2) / 2)
  weight[[0, -1]] /= 2
  difference = x - x.T
  off = difference[~np.eye(9, dtype=bool)]
  target = np.exp(-(t[:, 0] ** 2) / 2)
  power = np.cos(t * off).mean(axis=1)
  cross = np.cos(t * x[:, 0]).mean(axis=1)
  expected = 9 * (weight * (power - 2 * cross * target + target**2)).sum()
  value = unbiased(x.astype("float32"))
  np.testing.assert_allclose(value, expected, rtol=1e-5)


def test_zeros_give_the_known_value_and_no_gradient():
  x = jnp.zeros((64, 2))
  np.testing.assert_allclose(
    epps_pulley(x), 64 * 0.40204757973166455, rtol=1e-6
  )
  assert np.all(gradient_of(x) == 0)


def test_near_collapse_follows_the_second_order_expansion():
  # EP / N = 0.402048 - 1.546039 m2 + 2.431841 m1^2 + O(4).
  x = 0.02 * jax.random.normal(jax.random.key(2), (512, 1)) + 0.03
  m1, m2 = float(x.mean()), float((x**2).mean())
  expected = 0.402047580 - 1.546038521 * m2 + 2.431841368 * m1**2
  assert epps_pulley(x)[0] / 512 == pytest.approx(expected, abs=5e-6)


def test_gradient_near_collapse_grows_with_the_spread():
  x = jax.random.normal(jax.random.key(3), (256, 16))
  norm = lambda s: jnp.linalg.norm(gradient_of(s * x)) / s
  assert norm(1e-2) > 1
  np.testing.assert_allclose(norm(1e-4), norm(1e-2), rtol=2e-3)


def test_a_distant_point_mass_aliases_at_the_documented_period():
  # With nodes at multiples of 3/16 the constant 2 pi / (3/16) looks like 0.
  period = 2 * math.pi * 16 / 3
  value = lambda c: epps_pulley(jnp.full((4, 1), c))[0] / 4
  assert value(period) == pytest.approx(0.40205, abs=1e-4)
  assert value(period / 2) > 3.5


@quick
@hypothesis.given(matrices)
def test_gradient_is_bounded_and_statistic_not_negative(x):
  # |d/dx| <= 2 sum_k w_k t_k (1 + phi_k) = 5.930754, the sum over |t| <= 3.
  assert np.all(epps_pulley(x) >= 0)
  assert np.abs(gradient_of(x)).max() <= 5.9308


@quick
@hypothesis.given(matrices, st.randoms(use_true_random=False))
def test_order_and_sign_of_the_samples_do_not_matter(x, random):
  order = random.sample(range(len(x)), len(x))
  value = epps_pulley(x)
  tolerance = dict(rtol=1e-5, atol=1e-5)
  np.testing.assert_allclose(epps_pulley(x[order]), value, **tolerance)
  np.testing.assert_allclose(epps_pulley(-x), value, **tolerance)


@pytest.mark.slow
def test_vmap_and_leading_axes_equal_a_loop():
  x = jax.random.normal(jax.random.key(4), (2, 3, 11, 5))
  value, gradient = epps_pulley(x), gradient_of(x)
  assert value.shape == (2, 3, 5)
  mapped = jax.vmap(jax.vmap(epps_pulley))(x)
  mapped_gradient = jax.vmap(jax.vmap(gradient_of))(x)
  np.testing.assert_allclose(mapped, value, rtol=1e-5)
  np.testing.assert_allclose(mapped_gradient, gradient, atol=1e-6)
  for i, j in np.ndindex(2, 3):
    np.testing.assert_allclose(epps_pulley(x[i, j]), value[i, j], rtol=1e-5)
    np.testing.assert_allclose(gradient_of(x[i, j]), gradient[i, j], atol=1e-6)


@pytest.mark.parametrize("samples, rows", [(80, 16), (50, 50), (16, 16)])
def test_blocks_of_samples_change_nothing(monkeypatch, samples, rows):
  x = jax.random.normal(jax.random.key(7), (2, samples, 9))
  whole = jax.jit(jax.value_and_grad(total))(x)
  monkeypatch.setattr(ecf, "BLOCK", 2 * 9 * 16)
  assert ecf._rows_at_once(x.shape) == rows
  cut = jax.jit(lambda x: jax.value_and_grad(total)(x))(x)
  np.testing.assert_allclose(cut[0], whole[0], rtol=2e-6)
  np.testing.assert_allclose(cut[1], whole[1], atol=2e-6)
  by_column = jax.jit(lambda x: jlejepa.epps_pulley(x))(x)
  np.testing.assert_allclose(by_column, epps_pulley(x[..., ::-1])[..., ::-1],
                             rtol=2e-6)  # fmt: skip


def test_an_accelerator_takes_all_samples_at_once(monkeypatch):
  assert ecf._rows_at_once((4096, 1024)) == 256
  monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
  assert ecf._rows_at_once((4096, 1024)) == 4096


@pytest.mark.parametrize("num_points", [3, 17, 33])
def test_the_sums_of_a_gpu_are_those_of_a_cpu(monkeypatch, num_points):
  x = 2 * jax.random.normal(jax.random.key(8), (2, 48, 5))
  both = lambda: jax.value_and_grad(
    functools.partial(total, num_points=num_points)
  )(x)
  value, gradient = both()
  monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
  monkeypatch.setattr(ecf, "cos_sin", lambda *_: 1 / 0)
  with pytest.raises(ZeroDivisionError):  # the backward pass is shared
    both()
  np.testing.assert_allclose(total(x, num_points=num_points), value, rtol=3e-6)
  monkeypatch.undo()
  monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
  np.testing.assert_allclose(both()[1], gradient, atol=3e-6)


def test_the_backward_rule_is_linear_in_its_cotangents():
  x = jax.random.normal(jax.random.key(6), (7, 3))
  _, pull = jax.vjp(lambda x: characteristic_function(x, 0.3, 5), x)
  zero = jnp.zeros((5, 3))
  for node in range(5):
    one = zero.at[node, 1].set(1.0)
    t = 0.3 * (node + 1)
    from_real, from_imag = pull((one, zero))[0], pull((zero, one))[0]
    np.testing.assert_allclose(
      from_real[:, 1], -t * np.sin(t * x[:, 1]) / 7, atol=1e-6
    )
    np.testing.assert_allclose(
      from_imag[:, 1], t * np.cos(t * x[:, 1]) / 7, atol=1e-6
    )
    assert np.all(from_real[:, [0, 2]] == 0)


def test_memory_hardly_grows_with_the_nodes():
  x = jnp.zeros((256, 256))

  def temporaries(num_points):
    gradient = jax.jit(
      jax.grad(functools.partial(total, num_points=num_points))
    )
    analysis = gradient.lower(x).compile().memory_analysis()
    if analysis is None:
      pytest.skip("this backend does not report memory")
    return analysis.temp_size_in_bytes

  # Plain autodiff keeps an [N, M] array for each of the nodes, twice. These
  # are six more powers to multiply with; XLA of jax 0.7.2 holds on to others.
  few, more = (10, 6) if jax.__version_info__ >= (0, 10) else (17, 26)
  assert temporaries(17) < few * x.nbytes
  assert temporaries(65) - temporaries(17) < more * x.nbytes


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float64"])
def test_other_precisions_are_computed_in_float32(dtype):
  jax.config.update("jax_enable_x64", True)
  try:
    x = jnp.asarray(np.linspace(-2, 2, 12).reshape(6, 2), dtype)
    value, gradient = epps_pulley(x), gradient_of(x)
    single = epps_pulley(x.astype(jnp.float32))
  finally:
    jax.config.update("jax_enable_x64", False)
  assert value.dtype == jnp.float32
  assert gradient.dtype == x.dtype == dtype
  np.testing.assert_array_equal(value, single)


@pytest.mark.parametrize(
  "x, options, message",
  [
    (np.zeros((1, 4), "f"), {}, "at least 2 samples"),
    (np.zeros(4, "f"), {}, "shape"),
    (np.zeros((4, 0), "f"), {}, "at least 1 variable"),
    (np.zeros((4, 4), "i"), {}, "floating"),
    (np.zeros((4, 4), "f"), dict(num_points=16), "odd"),
    (np.zeros((4, 4), "f"), dict(num_points=1), "odd"),
    (np.zeros((4, 4), "f"), dict(t_max=0.0), "positive"),
  ],
)
def test_bad_input_is_named(x, options, message):
  for test in (jlejepa.epps_pulley, jlejepa.epps_pulley_unbiased):
    with pytest.raises(ValueError, match=message):
      test(x, **options)
