"""Every planner on problems whose answer is known."""

import collections
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jplanet import planners
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
  scale: Any = 1.0


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
      value = -jnp.sum(jnp.square(actions - problem.target)) * problem.scale
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
  np.testing.assert_allclose(result.actions, target, atol=0.15)
  # The estimate of the score is that of its elites, so it is close to 0 too.
  assert -0.05 < result.score <= 0


@each_planner
def test_small_differences_of_return_count_as_much_as_large_ones(name):
  # Far from a sparse reward a learned head differs by hundredths, and they
  # lead there: random moves where scores seem to tie cost the cup two thirds
  # of its return (results/README.md).
  target = np.array([[0.3], [-0.6]])
  small = plan(name, target=target, scale=2.0**-8)
  large = plan(name, target=target)
  np.testing.assert_allclose(small.actions, large.actions, atol=1e-3)


@each_planner
def test_finds_an_optimum_at_the_edge_of_the_box(name):
  # The unconstrained optimum 5 lies outside; the best allowed action is 2.
  result = plan(name, target=5.0)
  np.testing.assert_allclose(result.actions, 2.0, atol=0.15)


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


def quadratic(target):
  return lambda actions, key: -jnp.sum(jnp.square(actions - target))


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


def test_a_score_that_is_not_a_scalar_is_an_error():
  with pytest.raises(ValueError, match=r"must return a scalar.*\(2,\)"):
    planners.cem(
      jax.random.key(0), lambda actions, key: actions.sum(axis=0), **GOOD
    )
