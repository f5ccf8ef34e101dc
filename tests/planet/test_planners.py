"""Every planner on problems whose answer is known."""

import collections
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jplanet import planners
from jplanet.planners.common import refit
from jplanet.planners.gradient import ascend
from jplanet.planners.icem import population_sizes
from jplanet.planners.mppi import mppi_weights
from jplanet.planners.noise import coloured_noise, lag_one
from jplanet.types import Plan

PLANNERS = {
  "cem": functools.partial(
    planners.cem, candidates=100, elites=10, iterations=6
  ),
  "icem": functools.partial(planners.icem, candidates=80, noise_beta=0.5),
  "mppi": functools.partial(
    planners.mppi, candidates=128, elites=16, init_std=1.0
  ),
  "random_shooting": functools.partial(planners.random_shooting, elites=4),
  "gradient_plan": functools.partial(planners.gradient_plan, candidates=50),
}
ELITES = {"cem": 10, "icem": 10, "mppi": 16}
ELITES |= {"random_shooting": 4, "gradient_plan": 10}
LOW, HIGH = -1.0, np.array([2.0])  # A box that is not centred on 0.
TRACES = collections.Counter()

each_planner = pytest.mark.parametrize("name", PLANNERS)


class Problem(NamedTuple):
  """A quadratic with an optimum, broken outside of a range of first actions."""

  target: Any = 0.0
  lowest: Any = -np.inf
  highest: Any = np.inf
  bad: Any = np.nan
  noise: Any = 0.0


@pytest.fixture(autouse=True)
def no_silent_broadcasting():
  with jax.numpy_rank_promotion("raise"):
    yield


@functools.cache
def compiled(name, batch=False):
  """Compiles one planner once for all tests: horizon 2, one action."""

  def run(key, problem, warm):
    def score(actions, key):
      TRACES[name] += 1
      value = -jnp.sum(jnp.square(actions - problem.target))
      value += problem.noise * jax.random.normal(key)
      first = actions[0, 0]
      fine = (first >= problem.lowest) & (first <= problem.highest)
      return jnp.where(fine, value, problem.bad)

    return PLANNERS[name](
      key, score, horizon=2, action_dim=1, low=LOW, high=HIGH, warm=warm
    )

  return jax.jit(jax.vmap(run, in_axes=(0, 0, None)) if batch else run)


def empty(name):
  return planners.empty_plan(2, 1, ELITES[name], low=LOW, high=HIGH)


def plan(name, seed=0, warm=None, **problem):
  problem = jax.tree.map(jnp.float32, Problem(**problem))
  target = jnp.broadcast_to(problem.target, (2, 1))
  warm = empty(name) if warm is None else warm
  result = compiled(name)(
    jax.random.key(seed), problem._replace(target=target), warm
  )
  return jax.tree.map(np.asarray, result)


def assert_plans_close(a, b, atol=1e-5):
  for field, x, y in zip(Plan._fields, a, b, strict=True):
    np.testing.assert_allclose(x, y, atol=atol, err_msg=field)


@each_planner
def test_finds_the_optimum_of_a_quadratic(name):
  target = np.array([[0.3], [-0.6]])
  result = plan(name, target=target)
  np.testing.assert_allclose(result.actions, target, atol=0.12)
  # The estimate of the score is that of its elites, so it is close to 0 too.
  assert -0.05 < result.score <= 0


@each_planner
def test_finds_an_optimum_at_the_edge_of_the_box(name):
  # The unconstrained optimum 5 lies outside; the best allowed action is 2.
  result = plan(name, target=5.0)
  np.testing.assert_allclose(result.actions, 2.0, atol=0.12)


@each_planner
def test_one_of_many_plans_as_it_does_alone_and_all_keep_the_bounds(name):
  targets = jax.random.uniform(
    jax.random.key(9), (40, 2, 1), minval=-4.0, maxval=5.0
  )
  keys = jax.random.split(jax.random.key(1), 40)
  problems = jax.vmap(lambda t: Problem(t, noise=0.01))(targets)
  problems = jax.tree.map(
    lambda x: jnp.broadcast_to(jnp.float32(x), (40, *jnp.shape(x)[1:])),
    problems,
  )
  together = compiled(name, batch=True)(keys, problems, empty(name))
  together = jax.tree.map(np.asarray, together)
  for array in (together.actions, together.mean, together.elites):
    assert array.min() >= LOW - 1e-5 and array.max() <= HIGH[0] + 1e-5
  for i in (0, 5):
    problem = jax.tree.map(lambda x: x[i], problems)  # noqa: B023
    alone = compiled(name)(keys[i], problem, empty(name))
    expected = jax.tree.map(lambda x: x[i], together)  # noqa: B023
    assert_plans_close(alone, expected)


@each_planner
def test_the_key_decides_every_bit(name):
  first, again = plan(name, seed=3), plan(name, seed=3)
  jax.tree.map(np.testing.assert_array_equal, first, again)
  assert np.any(first.elites != plan(name, seed=4).elites)


@each_planner
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_scores_that_are_not_finite_never_win(name, bad):
  # The optimum 1 is broken, as is all above 0: the best first action is 0.
  result = plan(name, target=1.0, highest=0.0, bad=bad)
  assert -0.3 < result.actions[0, 0] <= 1e-6
  assert np.isfinite(result.score)


@each_planner
def test_broken_candidates_do_not_blur_the_elites(name):
  # About 5 in 100 candidates are finite at first, fewer than there are elites.
  result = plan(name, target=0.6, lowest=0.5, highest=0.7)
  assert 0.5 <= result.actions[0, 0] <= 0.7
  assert np.isfinite(result.score)


@each_planner
@pytest.mark.parametrize("warm", [False, True])
def test_without_any_finite_score_the_plan_is_still_safe(name, warm):
  warm = plan(name) if warm else None
  result = plan(name, warm=warm, highest=-np.inf)
  assert result.score == -np.inf
  for array in (result.actions, result.mean, result.std, result.elites):
    assert np.all(np.isfinite(array))
  assert result.actions.min() >= LOW and result.actions.max() <= HIGH


@each_planner
def test_a_plan_that_found_nothing_finite_is_a_fresh_start(name):
  lost = jax.tree.map(lambda x: x + 0.7, empty(name))
  assert_plans_close(plan(name, target=0.4), plan(name, target=0.4, warm=lost))


@each_planner
def test_a_carried_plan_never_retraces(name):
  carried = plan(name)
  count = TRACES[name]
  for seed in range(3):
    carried = plan(name, seed=seed, warm=carried)
  assert TRACES[name] == count


@pytest.mark.parametrize("name", ["cem", "icem", "mppi"])
def test_a_warm_start_improves_the_plan(name):
  # A target that slides along time, as two decisions see it.
  target = jnp.sin(jnp.arange(9.0))[:, None] * jnp.ones((1, 2))
  score = lambda target: lambda a, key: -jnp.sum(jnp.square(a - target))
  decide = jax.jit(
    lambda key, target, warm: PLANNERS[name](
      key, score(target), horizon=8, action_dim=2, warm=warm, iterations=2
    )
  )
  gains = []
  for seed in range(12):
    key, again = jax.random.split(jax.random.key(seed))
    cold = planners.empty_plan(8, 2, ELITES[name])
    first = decide(key, target[:8], cold)
    results = [decide(again, target[1:], warm) for warm in (cold, first)]
    cold, warm = [score(target[1:])(r.actions, None) for r in results]
    gains.append(warm - cold)
  assert np.mean(gains) > 0


# Not gradient_plan: its ascent keeps one key on purpose.
@pytest.mark.parametrize("name", ["cem", "icem", "mppi", "random_shooting"])
def test_no_key_is_used_twice(name):
  def score(actions, key):
    return jnp.sum(actions) + jax.random.normal(key)

  run = jax.jit(lambda key: PLANNERS[name](key, score, horizon=2, action_dim=1))
  with jax.debug_key_reuse(True):
    run(jax.random.key(0))


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
  neighbours = (noise[:, 1:] * noise[:, :-1]).mean()
  np.testing.assert_allclose(neighbours, lag_one(horizon, beta), atol=0.02)
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
  bounds = planners.common.make_bounds(3, 1, -1.0, 1.0)
  key, start = jax.random.key(0), jnp.array([[0.0], [0.0], [-0.1]])
  run = lambda start: ascend(
    start, score(start, key), key, score, bounds, steps=5, learning_rate=0.05
  )
  actions, new = jax.jit(run)(start)
  assert np.all(np.abs(actions) <= 1)
  assert new >= score(start, key)
  np.testing.assert_allclose(new, score(actions, key), rtol=1e-4, atol=1e-5)


def walk(planner, key, horizon=12, steps=200, **options):
  """Walks noise-free towards a reward out of reach; returns the returns."""

  def step(state, action):
    position, velocity = state
    velocity = 0.8 * velocity + 0.01 * action[0]
    position = jnp.clip(position + velocity, -1.0, 1.0)
    hit = jnp.abs(position - 0.7) < 0.15
    return (position, velocity), jnp.where(hit, 1.0, 0.0)

  def decide(carry, key):
    state, warm = carry

    def score(actions, key):
      rewards = jax.lax.scan(step, state, actions)[1]
      return rewards.sum() + 0.005 * jax.random.normal(key)

    chosen = planner(
      key, score, horizon=horizon, action_dim=1, warm=warm, **options
    )
    state, reward = step(state, chosen.actions[0])
    return (state, chosen), reward

  empty = planners.empty_plan(horizon, 1, 10)
  start = ((jnp.zeros(()), jnp.zeros(())), empty)
  return jax.lax.scan(decide, start, jax.random.split(key, steps))[1].sum()


@pytest.mark.parametrize("name", ["cem", "icem"])
def test_with_tied_scores_the_agent_moves_until_reward_is_in_reach(name):
  planner = getattr(planners, name)
  options = dict(candidates=50, elites=10, iterations=3, noise_beta=2.5)
  keys = jax.random.split(jax.random.key(0), 16)
  run = lambda **extra: jax.jit(
    jax.vmap(lambda key: walk(planner, key, **options, **extra))
  )(keys)
  found = np.mean(run(tie_tol=0.1) > 0)
  assert found >= 0.8
  if name == "cem":
    assert np.mean(run() > 0) <= found - 0.3, "the remedy must be the cause"


def test_exploration_leaves_a_decided_search_alone():
  score = quadratic(0.5)
  kwargs = dict(horizon=3, action_dim=1)
  off, on = run_cem(score, **kwargs), run_cem(score, tie_tol=0.1, **kwargs)
  jax.tree.map(np.testing.assert_array_equal, off, on)


def test_exploration_goes_on_with_the_plan_under_way():
  options = dict(horizon=6, tie_tol=0.1, noise_beta=2.0)
  flat = lambda actions, key: 0.0
  first = run_cem(flat, seed=0, **options)
  second = run_cem(flat, seed=1, warm=first, **options)
  np.testing.assert_array_equal(second.actions[:-1], first.actions[1:])
  assert np.abs(first.actions).max() > 0.3


GOOD = dict(horizon=3, action_dim=2)


@each_planner
@pytest.mark.parametrize(
  "options, message",
  [
    ({"horizon": 0}, "horizon must be at least 1"),
    ({"action_dim": 0}, "action_dim must be at least 1"),
    ({"low": 1.0, "high": 1.0}, "low < high"),
    ({"high": np.inf}, "finite"),
    ({"low": np.zeros(3)}, "low must be a scalar or have shape"),
    ({"elites": 2000}, "elites must lie between"),
    ({"elites": 0}, "elites must lie between"),
    ({"warm": planners.empty_plan(4, 2, 10)}, "warm.actions has shape"),
    ({"warm": planners.empty_plan(3, 2, 11)}, "warm.elites has shape"),
  ],
)
def test_bad_arguments_are_named(name, options, message):
  with pytest.raises(ValueError, match=message):
    PLANNERS[name](jax.random.key(0), quadratic(0.0), **(GOOD | options))


@pytest.mark.parametrize(
  "name, options, message",
  [
    ("cem", {"iterations": 0}, "iterations must be at least 1"),
    ("icem", {"iterations": 0}, "iterations must be at least 1"),
    ("mppi", {"iterations": 0}, "iterations must be at least 1"),
    ("cem", {"keep_elites": 1.5}, r"keep_elites must lie in \[0, 1\]"),
    ("cem", {"candidates": 10, "keep_elites": 1.0, "include_mean": True},
     "leave no room"),
    ("cem", {"tie_tol": -1.0}, "tie_tol must be"),
    ("icem", {"decay": 0.5}, "decay must be at least 1"),
    ("icem", {"momentum": 1.0}, "momentum must lie"),
    ("mppi", {"temperature": 0.0}, "temperature must be positive"),
    ("mppi", {"min_std": 3.0}, "min_std <= max_std"),
    ("gradient_plan", {"steps": 0}, "steps must be at least 1"),
  ],
)  # fmt: skip
def test_bad_constants_are_named(name, options, message):
  with pytest.raises(ValueError, match=message):
    PLANNERS[name](jax.random.key(0), quadratic(0.0), **(GOOD | options))


def test_a_score_that_is_not_a_scalar_is_an_error():
  with pytest.raises(ValueError, match=r"must return a scalar.*\(1,\)"):
    run_cem(lambda actions, key: actions.sum(axis=0))
