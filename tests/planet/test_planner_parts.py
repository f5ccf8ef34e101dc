"""What sets each planner apart: refits, noise, kept elites, weights, ascent."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jplanet import planners
from jplanet.planners.common import make_bounds, refit
from jplanet.planners.gradient import ascend
from jplanet.planners.icem import population_sizes
from jplanet.planners.mppi import mppi_weights
from jplanet.planners.noise import coloured_noise
from jplanet.types import Plan


@pytest.fixture(autouse=True)
def no_silent_broadcasting():
  with jax.numpy_rank_promotion("raise"):
    yield


def test_refit_of_three_elites():
  # Mean 1/6; deviations 1/3, -7/6, 5/6; population variance 13/18 + 1e-6.
  elites = jnp.array([0.5, -1.0, 1.0]).reshape(3, 1, 1)
  mean, std, score = refit(elites, jnp.array([3.0, 2.0, 1.0]))
  np.testing.assert_allclose(mean, [[1 / 6]], rtol=1e-6)
  np.testing.assert_allclose(std, [[0.8498371740]], rtol=1e-6)
  np.testing.assert_allclose(score, 2.0, rtol=1e-6)
  # Without the one at 1 the mean is -1/4 and the deviation 3/4.
  broken = jnp.array([3.0, 2.0, -jnp.inf])
  mean, std, score = refit(elites, broken)
  np.testing.assert_allclose(mean, [[-0.25]], rtol=1e-6)
  np.testing.assert_allclose(std, [[np.sqrt(0.5625 + 1e-6)]], rtol=1e-6)
  np.testing.assert_allclose(score, 2.5, rtol=1e-6)


def quadratic(target):
  return lambda actions, key: -jnp.sum(jnp.square(actions - target))


def assert_plans_close(a, b):
  for field, x, y in zip(Plan._fields, a, b, strict=True):
    np.testing.assert_allclose(x, y, atol=1e-5, err_msg=field)


def run_cem(score, horizon=1, action_dim=1, seed=0, **options):
  run = lambda key: planners.cem(
    key, score, horizon=horizon, action_dim=action_dim, **options
  )
  return jax.jit(run)(jax.random.key(seed))


def test_no_warm_plan_means_an_empty_one():
  score = quadratic(0.3)
  none = run_cem(score, iterations=2)
  some = run_cem(score, iterations=2, warm=planners.empty_plan(1, 1, 100))
  assert_plans_close(none, some)


def test_cem_starts_from_a_clipped_standard_normal():
  # E[min(x^2, 1)] = P(|x| > 1) + (P(|x| < 1) - 2 phi(1)) = 1 - 0.48394.
  options = dict(candidates=20_000, elites=20_000, iterations=1)
  result = run_cem(lambda actions, key: 0.0, **options)
  np.testing.assert_allclose(result.mean, 0.0, atol=0.02)
  np.testing.assert_allclose(result.std, np.sqrt(0.51606), atol=0.01)


def test_cem_clips_before_the_refit():
  # P(x > 1) = 0.159, so the best 100 of 1000 are all clipped to exactly 1.
  result = run_cem(lambda actions, key: actions.sum(), iterations=1)
  np.testing.assert_allclose(result.mean, 1.0, atol=1e-6)
  np.testing.assert_allclose(result.std, 1e-3, rtol=1e-5)


def test_cem_returns_the_statistics_of_its_last_elites():
  score = lambda actions, key: -jnp.sum(jnp.abs(actions - 0.3))
  result = run_cem(score, horizon=4, action_dim=2)
  elites = np.asarray(result.elites, np.float64)
  assert elites.shape == (100, 4, 2)
  np.testing.assert_allclose(result.mean, elites.mean(0), atol=1e-6)
  std = np.sqrt(elites.var(0) + 1e-6)
  np.testing.assert_allclose(result.std, std, rtol=1e-4)
  np.testing.assert_array_equal(result.actions, result.mean)
  scores = -np.abs(elites - 0.3).sum((1, 2))
  np.testing.assert_allclose(result.score, scores.mean(), rtol=1e-5)
  assert np.all(np.diff(scores) <= 1e-6), "best first"


@pytest.mark.parametrize(
  "planner, options",
  [
    (planners.cem, {"keep_elites": 0.3, "iterations": 4}),
    (planners.icem, {}),
    (planners.random_shooting, {}),
  ],
)
def test_a_perfect_elite_survives_the_shift(planner, options):
  target = jax.random.uniform(jax.random.key(5), (4, 2), minval=-1)
  elites = 1 if planner is planners.random_shooting else 10
  options = dict(options, candidates=30, elites=elites)
  warm = planners.empty_plan(4, 2, elites)._replace(score=jnp.array(0.0))
  old = jnp.concatenate([jnp.zeros((1, 2)), target[:3]])
  warm = warm._replace(actions=old, elites=jnp.tile(old[None], (elites, 1, 1)))
  score = lambda actions, key: quadratic(target)(
    actions.at[3].set(target[3]), key
  )
  run = lambda key: planner(
    key, score, horizon=4, action_dim=2, warm=warm, **options
  )
  result = jax.jit(run)(jax.random.key(0))
  np.testing.assert_array_equal(result.elites[0, :3], target[:3])


def test_the_mean_can_be_a_candidate():
  target = jnp.array([[0.25], [-0.5], [0.0]])
  warm = planners.empty_plan(3, 1, 1)._replace(score=jnp.array(0.0))
  warm = warm._replace(mean=jnp.array([[0.9], [0.25], [-0.5]]))
  options = dict(candidates=5, elites=1, iterations=1, warm=warm)
  score = quadratic(target)
  result = run_cem(score, 3, 1, include_mean=True, **options)
  np.testing.assert_array_equal(result.actions, target)
  assert np.any(run_cem(score, 3, 1, **options).actions != target)


@pytest.mark.parametrize("beta", [0.0, 0.25, 2.5])
@pytest.mark.parametrize("horizon", [12, 15])
def test_coloured_noise_has_its_spectrum_and_unit_variance(horizon, beta):
  keys = jax.random.split(jax.random.key(0), 20_000)
  draw = jax.vmap(lambda key: coloured_noise(key, horizon, 2, beta))
  noise = np.asarray(jax.jit(draw)(keys), np.float64)
  np.testing.assert_allclose(noise.mean((0, 2)), 0.0, atol=0.03)
  np.testing.assert_allclose(noise.std((0, 2)), 1.0, atol=0.02)
  power = (np.abs(np.fft.rfft(noise, axis=1)) ** 2).mean((0, 2))[1:]
  slope = np.polyfit(np.log(np.fft.rfftfreq(horizon)[1:]), np.log(power), 1)[0]
  np.testing.assert_allclose(slope, -beta, atol=0.05)
  channels = (noise[..., 0] * noise[..., 1]).mean()
  np.testing.assert_allclose(channels, 0.0, atol=0.02)


def test_population_sizes():
  assert population_sizes(150, 10, 3, 1.25) == [150, 120, 96]  # 366 in all
  assert population_sizes(40, 10, 5, 1.5) == [40, 26, 20, 20, 20]


def test_mppi_weights_do_not_depend_on_the_scale_of_the_reward():
  scores = jnp.array([2.0, 1.0, 0.0, -1.0])
  # Standard deviation sqrt(1.25): ratios of neighbours are exp(1 / (t std)).
  weights = np.asarray(mppi_weights(scores, 0.5))
  ratio = np.exp(2 / np.sqrt(1.25))
  np.testing.assert_allclose(weights[:-1] / weights[1:], ratio, rtol=1e-4)
  np.testing.assert_allclose(weights.sum(), 1.0, rtol=1e-6)
  scaled = mppi_weights(1000 * scores + 50, 0.5)
  np.testing.assert_allclose(scaled, weights, rtol=1e-3)
  np.testing.assert_allclose(mppi_weights(jnp.ones(4), 0.5), 0.25)
  np.testing.assert_allclose(mppi_weights(jnp.full(4, -jnp.inf), 0.5), 0.25)
  some = mppi_weights(jnp.array([1.0, 1.0, -jnp.inf]), 0.5)
  np.testing.assert_allclose(some, [0.5, 0.5, 0.0])


def test_gradients_help_where_samples_are_few():
  target = jax.random.uniform(jax.random.key(2), (10, 4), minval=-0.9)
  options = dict(horizon=10, action_dim=4, candidates=40, elites=8)
  options |= dict(iterations=3, include_mean=True)
  run = lambda planner: (
    planner(jax.random.key(0), quadratic(target), **options).score
  )
  assert run(planners.gradient_plan) > 0.5 * run(planners.cem)


@pytest.mark.parametrize(
  "score",
  [
    # The gradient of sqrt is infinite at 0, and points out of the box.
    lambda actions, key: jnp.sqrt(jnp.abs(actions)).sum(),
    lambda actions, key: -jnp.sqrt(jnp.abs(actions)).sum(),
    lambda actions, key: jnp.sin(40 * actions).sum(),
    lambda actions, key: jnp.where(
      actions.sum() > 0.01, jnp.nan, actions.sum()
    ),
  ],
)
def test_ascent_never_makes_a_sequence_worse(score):
  bounds = make_bounds(3, 1, -1.0, 1.0)
  key, start = jax.random.key(0), jnp.array([[0.0], [0.0], [-0.1]])
  run = lambda start: ascend(
    start, score(start, key), key, score, bounds, steps=5, learning_rate=0.05
  )
  actions, new = jax.jit(run)(start)
  assert np.all(np.abs(actions) <= 1)
  assert new >= score(start, key)
  np.testing.assert_allclose(new, score(actions, key), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
  "name, options, message",
  [
    ("cem", {"iterations": 0}, "iterations must be at least 1"),
    ("icem", {"iterations": 0}, "iterations must be at least 1"),
    ("mppi", {"iterations": 0}, "iterations must be at least 1"),
    ("cem", {"keep_elites": 1.5}, r"keep_elites must lie in \[0, 1\]"),
    ("cem", {"candidates": 100, "keep_elites": 1.0, "include_mean": True},
     "leave no room"),
    ("icem", {"decay": 0.5}, "decay must be at least 1"),
    ("icem", {"momentum": 1.0}, "momentum must lie"),
    ("mppi", {"temperature": 0.0}, "temperature must be positive"),
    ("mppi", {"min_std": 3.0}, "min_std <= max_std"),
    ("gradient_plan", {"steps": 0}, "steps must be at least 1"),
  ],
)  # fmt: skip
def test_bad_constants_are_named(name, options, message):
  with pytest.raises(ValueError, match=message):
    planner = getattr(planners, name)
    planner(
      jax.random.key(0), quadratic(0.0), horizon=3, action_dim=2, **options
    )
