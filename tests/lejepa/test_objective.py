import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jlejepa

loss_fn = jax.jit(
  jlejepa.lejepa_loss,
  static_argnames=("num_global", "num_slices", "t_max", "test", "sampler"),
)


@pytest.fixture(scope="module")
def projections():
  return 0.5 * jax.random.normal(jax.random.key(0), (4, 12, 3)) + 0.1


def test_loss_and_gradient_agree_with_the_official_package(reference):
  z = jnp.asarray(reference.arrays["x_views_4x64x16"])
  a = reference.arrays["A_16x256"]
  loss = functools.partial(
    jlejepa.lejepa_loss, num_global=2, sampler=lambda *_: jnp.asarray(a)
  )
  (value, metrics), gradient = jax.jit(jax.value_and_grad(loss, has_aux=True))(
    z, jax.random.key(0)
  )
  expected = reference.values["lejepa_loss"]["lam0.05_center_first2_views"]
  np.testing.assert_allclose(value, expected["loss"], rtol=2e-6)
  np.testing.assert_allclose(
    gradient, reference.arrays["lejepa_grad_lam0.05"], atol=1e-8
  )
  minimal = reference.values["sigreg_minimal"]
  np.testing.assert_allclose(
    metrics["prediction"], minimal["inv_center_first2 (paper)"], rtol=2e-6
  )
  np.testing.assert_allclose(
    jlejepa.prediction_loss(z, num_global=4),
    minimal["inv_center_all_views (MINIMAL)"],
    rtol=2e-6,
  )


def test_is_the_weighted_sum_of_its_two_terms(projections):
  key = jax.random.key(1)
  options = dict(num_global=2, num_slices=16)
  for lam in (0.0, 0.3, 1.0):
    loss, metrics = loss_fn(projections, key, lam=lam, **options)
    expected = (1 - lam) * metrics["prediction"] + lam * metrics["sigreg"]
    np.testing.assert_allclose(loss, expected, rtol=1e-6)
  np.testing.assert_allclose(
    metrics["sigreg"],
    jlejepa.sigreg(projections, key, num_slices=16),
    rtol=1e-5,
  )


def test_prediction_is_the_distance_to_the_mean_global_view(projections):
  z = np.asarray(projections, np.float64)
  for num_global in (1, 2, 4):
    total = 0.0
    for n in range(z.shape[1]):
      centre = z[:num_global, n].mean(axis=0)
      total += sum(((view[n] - centre) ** 2).sum() for view in z)
    value = jlejepa.prediction_loss(projections, num_global=num_global)
    np.testing.assert_allclose(value, total / z.size, rtol=1e-5)


def test_prediction_and_the_pairwise_form_differ_by_the_spread_of_the_globals(
  projections,
):
  # Bias and variance: mean over globals g and views v of |z_v - z_g|^2 is the
  # form with the mean plus the variance of the globals, not the form itself.
  z = np.asarray(projections, np.float64)
  pairwise = ((z[:2, None] - z[None]) ** 2).mean()
  spread = ((z[:2] - z[:2].mean(axis=0)) ** 2).mean()
  value = jlejepa.prediction_loss(projections, num_global=2)
  np.testing.assert_allclose(value, pairwise - spread, rtol=1e-5)


def test_predictions_and_a_given_centre_take_their_places(projections):
  generator = np.random.default_rng(1)
  predictions = generator.normal(size=projections.shape).astype("float32")
  centre = generator.normal(size=projections.shape[1:]).astype("float32")
  z, p, c = map(np.float64, (projections, predictions, centre))
  key = jax.random.key(7)
  regulariser = float(jlejepa.sigreg(projections, key, num_slices=16))
  for given, prediction in (
    (dict(predictions=predictions), (p - z[:2].mean(axis=0)) ** 2),
    (dict(centre=centre), (z - c) ** 2),
    (dict(predictions=predictions, centre=centre), (p - c) ** 2),
  ):
    loss, metrics = loss_fn(
      projections, key, num_global=2, num_slices=16, lam=0.3, **given
    )
    np.testing.assert_allclose(
      metrics["prediction"], prediction.mean(), rtol=1e-6
    )
    # SIGReg is of the projections, whatever the prediction term compares.
    expected = 0.7 * prediction.mean() + 0.3 * regulariser
    np.testing.assert_allclose(loss, expected, rtol=2e-6)


@pytest.mark.parametrize(
  "lam, batch, reference, expected",
  [
    (0.05, 256, 256, 0.05),
    # lam N : 1 - lam kept at 0.05 * 256 : 0.95, so 0.1 / (0.1 + 0.95).
    (0.05, 128, 256, 0.1 / 1.05),
    (0.05, 1024, 256, 0.0125 / 0.9625),
    (0.0, 64, 256, 0.0),
    (1.0, 64, 256, 1.0),
  ],
)
def test_a_trade_off_moves_with_the_batch(lam, batch, reference, expected):
  value = jlejepa.scaled_lambda(lam, batch, reference)
  assert value == pytest.approx(expected, rel=1e-12)
  assert 0 <= value <= 1
  balance = lambda lam, n: (lam * n, 1 - lam)
  (a, b), (c, d) = balance(lam, reference), balance(value, batch)
  assert a * d == pytest.approx(b * c)
  back = jlejepa.scaled_lambda(value, reference, batch)
  assert back == pytest.approx(lam, rel=1e-12)


@pytest.mark.parametrize(
  "arguments, message",
  [
    ((-0.1, 8, 8), "lam must be from 0 to 1, got -0.1"),
    ((1.1, 8, 8), "lam must be from 0 to 1"),
    ((float("nan"), 8, 8), "lam must be from 0 to 1"),
    ((0.1, 0, 8), "at least 1, got 0 and 8"),
    ((0.1, 8, -1), "at least 1, got 8 and -1"),
  ],
)
def test_a_trade_off_out_of_range_is_named(arguments, message):
  with pytest.raises(ValueError, match=message):
    jlejepa.scaled_lambda(*arguments)


def test_gradient_flows_through_the_centre():
  # Two views at +1 and -1, both global: the centre is 0 and each term z^2 / 2,
  # so the gradient is z. With the centre frozen it would be the same here, so
  # take one global view: mean((z_1 - z_0)^2) / 2, whose slope at z_0 is not 0.
  z = jnp.array([[[1.0]], [[-1.0]]])
  gradient = jax.grad(lambda z: jlejepa.prediction_loss(z, num_global=1))(z)
  np.testing.assert_allclose(gradient, [[[2.0]], [[-2.0]]])


def test_the_order_of_the_samples_does_not_matter(projections):
  key, order = jax.random.key(1), np.random.default_rng(0).permutation(12)
  options = dict(num_global=2, num_slices=16)
  one, metrics = loss_fn(projections, key, **options)
  two, shuffled = loss_fn(projections[:, order], key, **options)
  np.testing.assert_allclose(one, two, rtol=1e-5)
  for name, value in metrics.items():
    np.testing.assert_allclose(value, shuffled[name], rtol=1e-5, atol=1e-6)


def test_excess_is_zero_on_average_for_gaussian_views():
  z = jax.random.normal(jax.random.key(2), (300, 16, 4))
  for t_max in (3.0, 5.0):
    metrics = loss_fn(
      z, jax.random.key(3), num_global=1, num_slices=16, t_max=t_max
    )[1]
    assert metrics["sigreg_excess"] == pytest.approx(0, abs=0.06)


def test_another_test_reports_no_excess(projections):
  metrics = loss_fn(
    projections,
    jax.random.key(0),
    num_global=1,
    num_slices=4,
    test=jlejepa.univariate.vcreg,
  )[1]
  assert "sigreg_excess" not in metrics
  assert metrics["sigreg"] > 0


def test_effective_rank_counts_the_directions_in_use():
  z = jax.random.normal(jax.random.key(4), (20000, 5))
  rank = jlejepa.effective_rank
  assert rank(z) == pytest.approx(5, rel=0.01)
  assert rank(z * jnp.array([1, 1, 0, 0, 0])) == pytest.approx(2, rel=0.01)
  assert rank(z[:, :1] * jnp.ones(5) + 7) == pytest.approx(1, rel=1e-3)
  # Variances 4 and 1: 5^2 / (16 + 1).
  scaled = z[:, :2] * jnp.array([2.0, 1.0])
  assert rank(scaled) == pytest.approx(25 / 17, rel=0.02)
  for scale in (1e-12, 1e12):
    assert rank(scale * z) == pytest.approx(5, rel=0.01)
  assert rank(jnp.zeros((4, 3))) == 0


def test_embedding_norm_is_the_mean_length():
  z = jnp.array([[[3.0, 4.0], [0.0, 1.0]]])
  metrics = loss_fn(z, jax.random.key(0), num_global=1, num_slices=2)[1]
  assert metrics["embedding_norm"] == pytest.approx(3.0)


def test_collapse_is_finite_and_without_a_gradient_to_any_term():
  z = jnp.zeros((2, 8, 3))
  (value, metrics), gradient = jax.value_and_grad(
    lambda z: loss_fn(z, jax.random.key(0), num_global=2, num_slices=4),
    has_aux=True,
  )(z)
  assert value == pytest.approx(0.05 * 8 * 0.40204758, rel=1e-5)
  assert all(np.isfinite(metric) for metric in metrics.values())
  assert np.all(gradient == 0)


def test_low_precision_and_a_traced_weight_are_accepted(projections):
  z = projections.astype(jnp.bfloat16)
  loss, metrics = loss_fn(
    z, jax.random.key(0), lam=jnp.float32(0.1), num_global=1, num_slices=4
  )
  assert loss.dtype == jnp.float32
  assert {m.dtype for m in metrics.values()} == {jnp.dtype("float32")}


@pytest.mark.parametrize(
  "shape, options, message",
  [
    ((4, 3), dict(num_global=1), "shape"),
    ((4, 8, 3), dict(num_global=0), "num_global"),
    ((4, 8, 3), dict(num_global=5), "num_global"),
    ((4, 1, 3), dict(num_global=1), "at least 2 samples"),
    ((4, 8, 3), dict(num_global=1, lam=1.5), "lam"),
    ((4, 8, 3), dict(num_global=1, centre=jnp.zeros((4, 8, 3))), "centre need"),
    (
      (4, 8, 3),
      dict(num_global=1, predictions=jnp.zeros((8, 3))),
      r"predictions need shape \[4, 8, 3\]",
    ),
  ],
)
def test_bad_input_is_named(shape, options, message):
  with pytest.raises(ValueError, match=message):
    jlejepa.lejepa_loss(jnp.zeros(shape), jax.random.key(0), **options)
