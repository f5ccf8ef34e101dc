"""The agent among others, on a small model with random weights."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jplanet.collect import collect, for_each, planned_policy
from jplanet.envs import Lockstep, check_env
from jplanet.setup import build
from jplanet.unroll import imagine, imagined_return

KEY = jax.random.key(0)


@pytest.fixture(scope="module")
def parts(tiny_config):
  return build(tiny_config(), action_dim=1)


@pytest.fixture(scope="module")
def params(parts):
  params = jax.jit(parts.model.init)(jax.random.key(1))
  # A fresh reward head is zero, and would leave the planner no preference.
  noise = lambda x: x + 0.3 * jax.random.normal(jax.random.key(2), x.shape)
  return params | {"reward": jax.tree.map(noise, params["reward"])}


@pytest.fixture(scope="module")
def act(parts):
  return jax.jit(parts.agent.act)


@pytest.fixture
def play(parts, params, dial):
  def play(seeds, noise, length=4):
    envs = Lockstep([check_env(dial(length), size=8) for _ in seeds])
    policy = planned_policy(
      parts.batched_act, parts.agent, params, KEY, seeds, noise
    )
    return collect(envs, seeds, policy)

  return play


@pytest.mark.slow
def test_the_same_seeds_give_the_same_bits(play):
  for one, two in zip(play([1, 2], 0.3), play([1, 2], 0.3)):
    for a, b in zip(one, two):
      np.testing.assert_array_equal(a, b)


@pytest.mark.slow
def test_an_episode_does_not_depend_on_its_neighbours(play):
  seeds = [5, 1, 2, 3, 4, 6, 7, 8]
  among, others = play(seeds, 0.3)[0], play([5, *range(20, 27)], 0.3)[0]
  np.testing.assert_array_equal(among.action, others.action)
  np.testing.assert_array_equal(among.image, others.image)
  # Alone, matrix products may be summed in another order.
  (alone,) = play([5], 0.3)
  np.testing.assert_allclose(alone.action, among.action, atol=1e-4)
  assert np.ptp(among.action) > 0.1


def test_noise_is_clipped_before_it_is_executed_and_stored(play, dial):
  (episode,) = play([3], 50.0)
  # Nearly every draw of std 50 leaves the box.
  assert np.abs(episode.action[1:]).max() == 1
  assert np.abs(episode.action).max() <= 1
  np.testing.assert_array_equal(episode.reward, episode.action[:, 0])
  np.testing.assert_array_equal(
    episode.image[1:, 0, 0, 0], dial.shade(episode.action[1:, 0])
  )


def test_the_filter_gets_the_action_that_was_executed(parts, params, act):
  image = jnp.full((8, 8, 3), 77, jnp.uint8)
  first, state = act(params, parts.agent.init(), image, KEY, 50.0)
  np.testing.assert_array_equal(state.action, first)
  assert abs(float(first[0])) == 1
  key = jax.random.key(9)
  _, after = act(params, state, image, key, 0.0)
  encode_key, filter_key, *_ = jax.random.split(key, 4)
  embed = parts.model.encode(params, image, encode_key)
  expected = parts.model.observe(params, state.latent, first, embed, filter_key)
  unclipped = parts.model.observe(
    params, state.latent, 5 * first, embed, filter_key
  )
  close = lambda a, b: np.allclose(a, b, atol=1e-5)
  assert close(after.latent.belief, expected.belief)
  assert not close(after.latent.belief, unclipped.belief)


def test_without_noise_the_plan_itself_is_executed(parts, params, act):
  image = jnp.zeros((8, 8, 3), jnp.uint8)
  action, state = act(params, parts.agent.init(), image, KEY, 0.0)
  np.testing.assert_array_equal(action, state.plan.actions[0])


def test_acting_compiles_once_for_a_number_of_environments(parts, play):
  play([1, 2], 0.3)
  before = parts.batched_act._cache_size()
  play([3, 4], 0.0)
  play([5, 6], 0.1)
  assert parts.batched_act._cache_size() == before


@pytest.mark.parametrize("count", [1, 4, 5])
def test_environments_few_at_a_time_are_as_all_at_once(monkeypatch, count):
  images = jax.random.normal(KEY, (count, 3, 2))
  keys = jax.random.split(KEY, count)

  def one(state, key):
    return state["x"] @ jnp.ones((2, 3)), jax.random.normal(key, (2,))

  def mapped(candidates):
    function = for_each(one, candidates)
    return jax.jit(function)({"x": images}, keys)

  monkeypatch.setattr("jplanet.collect.CANDIDATES_AT_ONCE", 1000)
  few, alone, many = mapped(500), mapped(5000), mapped(10)
  for a, b, c in zip(few, alone, many):
    np.testing.assert_allclose(a, c, rtol=1e-6)
    np.testing.assert_allclose(b, c, rtol=1e-6)
  loops = lambda n: str(
    jax.make_jaxpr(for_each(one, n))({"x": images}, keys)
  ).count("scan[")
  assert loops(10) == 0
  assert loops(500) == (count > 2)


@pytest.mark.parametrize("sampled", [True, False])
def test_the_return_of_a_plan_is_the_sum_of_its_rewards(
  parts, params, monkeypatch, sampled
):
  model, key = parts.model, KEY if sampled else None
  actions = jax.random.uniform(KEY, (5, 1), minval=-1)
  state = model.initial()
  states = imagine(model, params, state, actions, key)
  rewards = [
    model.reward(params, jax.tree.map(lambda x, t=t: x[t], states))
    for t in range(5)
  ]
  assert np.ptp(rewards) > 0.005
  value = lambda: imagined_return(model, params, state, actions, key)
  np.testing.assert_allclose(value(), sum(rewards), rtol=1e-6)
  monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
  np.testing.assert_allclose(value(), sum(rewards), rtol=1e-6)
