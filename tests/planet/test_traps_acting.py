"""Traps 1, 8, 9, 10, 12 and 14 of `test_traps.py`: acting and updating."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jplanet.agent import make_agent
from jplanet.learner import init_state, make_train_step
from jplanet.planners import empty_plan
from jplanet.preprocess import preprocess
from jplanet.types import WorldModel


def fake_model(**functions):
  """A world model on the line: an action moves the state, noise if sampled."""

  def move(params, state, action, key):
    noise = 0.0 if key is None else jax.random.normal(key)
    return state + action[0] + noise

  defaults = dict(
    init=lambda key, images=None: {"w": jnp.zeros(2)},
    initial=lambda: jnp.zeros(()),
    encode=lambda params, image, key: jnp.zeros(1),
    observe=lambda params, state, action, embed, key: 100 * state + action[0],
    imagine=move,
    reward=lambda params, state: state,
    decode=None,
    features=lambda state: state[None],
    loss=lambda params, batch, key: (jnp.zeros(()), {}),
  )
  return WorldModel(**{**defaults, **functions})


def fake_planner(key, score_fn, *, warm, actions):
  """Scores given actions twice, under different keys."""
  first, second = jax.random.split(key)
  scores = jnp.stack([score_fn(actions, k) for k in (first, second)])
  return warm._replace(
    actions=actions, mean=actions, score=scores[0] - scores[1]
  )


def fake_agent(model, actions, **options):
  plan = empty_plan(*actions.shape, 1)
  planner = functools.partial(fake_planner, actions=actions)
  return make_agent(model, planner, plan, **options)


IMAGE = jnp.zeros((8, 8, 3), jnp.uint8)


def test_trap_8_noise_is_clipped_and_the_filter_gets_what_was_executed():
  agent = fake_agent(fake_model(), jnp.full((3, 1), 0.5))
  state, executed = agent.init(), []
  for t in range(3):
    action, state = agent.act({}, state, IMAGE, jax.random.key(t), 50.0)
    executed.append(action[0])
    np.testing.assert_array_equal(state.action, action)
  assert set(np.abs(executed)) == {1.0}
  # The latent of decision 3 has digested 0, then the actions of 1 and 2.
  np.testing.assert_allclose(state.latent, 100 * executed[0] + executed[1])
  quiet, _ = agent.act({}, agent.init(), IMAGE, jax.random.key(0), 0.0)
  np.testing.assert_array_equal(quiet, [0.5])


def test_trap_9_acting_dithers_the_picture_anew_at_every_decision():
  seen = []
  encode = lambda params, image, key: seen.append(preprocess(image, key))
  agent = fake_agent(fake_model(encode=encode), jnp.zeros((2, 1)))
  for t in range(2):
    agent.act({}, agent.init(), IMAGE, jax.random.key(t), 0.0)
  assert (seen[0] != seen[1]).mean() > 0.9


def test_trap_10_candidates_share_one_posterior_sample():
  def observe_with_noise(params, state, action, embed, key):
    return jax.random.normal(key)

  model = fake_model(observe=observe_with_noise)
  actions = jnp.ones((3, 1))

  def difference(**options):
    agent = fake_agent(model, actions, **options)
    key = jax.random.key(0)
    return agent.act({}, agent.init(), IMAGE, key, 0.0)[1].plan.score

  # The same actions under two keys: the prior's samples differ, not the start.
  assert difference(sample_prior=True) != 0
  assert difference(sample_prior=False) == 0


def test_trap_1_and_12_returns_add_the_reward_after_each_action_undiscounted():
  model = fake_model(observe=lambda *_: jnp.array(10.0))
  scores = []

  def planner(key, score_fn, *, warm):
    scores.append(score_fn(jnp.array([[1.0], [2.0], [3.0]]), key))
    return warm

  agent = make_agent(model, planner, empty_plan(3, 1, 1), sample_prior=False)
  agent.act({}, agent.init(), IMAGE, jax.random.key(0), 0.0)
  # States 11, 13, 16. With the reward before each action: 10 + 11 + 13; with a
  # discount of 0.99: less than 40.
  np.testing.assert_array_equal(scores, [40.0])


def test_trap_14_the_norm_is_reported_unclipped_and_nan_changes_nothing():
  # A gradient of (3000, 4000) * scale; its norm is 5000, clipped at 1000.
  def loss(params, batch, key):
    value = batch * (params["w"] * jnp.array([3000.0, 4000.0])).sum()
    return value, {"loss": value}

  model = fake_model(loss=loss)
  optimizer = optax.chain(optax.clip_by_global_norm(1000.0), optax.sgd(1.0))
  step = jax.jit(make_train_step(model, optimizer))
  state = init_state(jax.random.key(0), model, optimizer)
  state, metrics = step(state, jnp.float32(1), jax.random.key(1))
  np.testing.assert_allclose(metrics["grad_norm"], 5000.0)
  np.testing.assert_allclose(state.params["w"], [-600.0, -800.0], rtol=1e-6)
  for skipped in (1, 2):
    state, _ = step(state, jnp.float32(np.nan), jax.random.key(1))
    assert state.skipped == skipped
    np.testing.assert_allclose(state.params["w"], [-600.0, -800.0], rtol=1e-6)
  state, _ = step(state, jnp.float32(1), jax.random.key(1))
  assert (state.updates, state.skipped) == (4, 0)
