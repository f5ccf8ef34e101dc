"""Planning where no candidate is better than another."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jplanet import planners
from jplanet.planners.common import make_bounds
from jplanet.planners.explore import explore_if_tied
from jplanet.planners.explore import spread as score_spread


def walk(key, horizon=12, steps=200, **options):
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

    chosen = planners.cem(
      key, score, horizon=horizon, action_dim=1, warm=warm,
      candidates=30, elites=10, iterations=2, **options,
    )  # fmt: skip
    state, reward = step(state, chosen.actions[0])
    return (state, chosen), reward

  empty = planners.empty_plan(horizon, 1, 10)
  start = ((jnp.zeros(()), jnp.zeros(())), empty)
  return jax.lax.scan(decide, start, jax.random.split(key, steps))[1].sum()


def test_with_tied_scores_the_agent_moves_until_reward_is_in_reach():
  keys = jax.random.split(jax.random.key(0), 64)

  def found(**options):
    run = lambda key: walk(key, **options)
    return np.mean(jax.jit(jax.vmap(run))(keys) > 0)

  moving = found(noise_beta=2.5, tie_tol=0.1)
  assert moving > 0.65
  assert found() < 0.2, "PlaNet's planner, warm started, stands still"
  assert found(noise_beta=2.5) < moving - 0.15, "colour alone is not enough"


def tie(spread, warm, horizon=4, seed=0, draw_pays=1.0):
  bounds = make_bounds(horizon, 2, -1.0, 1.0)
  chosen = planners.empty_plan(horizon, 2, 1)._replace(score=jnp.array(1.0))
  result = explore_if_tied(
    jax.random.key(seed), lambda actions, key: jnp.array(draw_pays),
    chosen, jnp.array(spread), warm, bounds,
    tie_tol=0.1, std=1.0,
  )  # fmt: skip
  return jax.tree.map(np.asarray, result), chosen


def test_exploration_leaves_a_decided_search_alone():
  got, chosen = tie(0.11, planners.empty_plan(4, 2, 1))
  jax.tree.map(np.testing.assert_array_equal, got, chosen)


def test_exploration_does_not_give_up_what_is_won():
  # All candidates keep the ball in its cup; the bold draw would lose it.
  got, chosen = tie(0.0, planners.empty_plan(4, 2, 1), draw_pays=0.89)
  jax.tree.map(np.testing.assert_array_equal, got, chosen)


@pytest.mark.parametrize("spread", [0.09, 0.0, -np.inf])
def test_exploration_goes_on_with_the_plan_under_way(spread):
  first, _ = tie(spread, planners.empty_plan(4, 2, 1), seed=0)
  assert np.abs(first.actions).max() > 0.3, "a draw, not the empty plan"
  second, _ = tie(spread, first, seed=1)
  np.testing.assert_array_equal(second.actions[:-1], first.actions[1:])
  np.testing.assert_array_equal(second.mean, second.actions)
  assert np.all(np.abs(second.actions) <= 1)
  assert np.any(second.actions[-1] != first.actions[-1])


def test_the_spread_ignores_scores_that_are_not_finite():
  assert score_spread(jnp.array([1.0, -jnp.inf, 0.25])) == 0.75
  assert score_spread(jnp.full(3, -jnp.inf)) == -np.inf
