"""The environments that compile: physics, pixels, episodes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jplanet.jax_envs import JAX_ENVS, episode, make_jax_env, render
from jplanet.jax_envs.pendulum import PendulumState, pendulum
from jplanet.jax_envs.point import PointState, point
from jplanet.planners import cem, empty_plan

each_env = pytest.mark.parametrize("name", JAX_ENVS)
SKY, BOB = (217, 230, 242), (217, 51, 38)


@pytest.fixture(autouse=True)
def no_silent_broadcasting():
  with jax.numpy_rank_promotion("raise"):
    yield


def random_policy(env):
  def act(memory, image, key):
    return jax.random.uniform(key, (env.action_dim,), minval=-1), memory

  return tuple, act


def random_episodes(env, count):
  init, act = random_policy(env)
  keys = jax.random.split(jax.random.key(0), count)
  return jax.jit(jax.vmap(lambda key: episode(env, init, act, key)))(keys)


def true_model_returns(env, key, horizon=12):
  """Plans with the true dynamics as the model; returns the rewards `[T]`."""

  def decide(carry, key):
    state, warm = carry
    score = lambda actions, key: jax.lax.scan(env.step, state, actions)[1].sum()
    plan = cem(
      key, score, horizon=horizon, action_dim=env.action_dim, warm=warm,
      candidates=100, elites=10, iterations=3,
    )  # fmt: skip
    state, reward = env.step(state, plan.actions[0])
    return (state, plan), reward

  start = (env.reset(key), empty_plan(horizon, env.action_dim, 10))
  keys = jax.random.split(key, env.episode_length)
  return jax.lax.scan(decide, start, keys)[1]


@each_env
def test_cem_with_the_true_dynamics_solves_the_task(name):
  env = make_jax_env(name, 32)
  keys = jax.random.split(jax.random.key(0), 6)
  plan = jax.jit(jax.vmap(lambda key: true_model_returns(env, key)))
  rewards = np.asarray(plan(keys))
  assert rewards[:, -20:].mean(1).min() > 0.9
  random = np.asarray(random_episodes(env, 32).reward)
  assert random[:, -20:].mean() < 0.35


def test_the_pendulum_starts_hanging_and_cannot_be_lifted():
  env = pendulum(32)
  start = env.reset(jax.random.key(0))
  np.testing.assert_allclose(start.angle, np.pi, atol=0.25)
  still = PendulumState(angle=jnp.array(np.pi), velocity=jnp.array(0.0))
  push = jnp.ones((env.episode_length, 1))
  _, rewards = jax.lax.scan(env.step, still, push)
  # A constant torque 4 does work 4 x against 10 (1 - cos x): they meet at
  # x = 0.834, a height of (1 - cos x) / 2 = 0.164 on the scale of the reward.
  assert 0.12 < rewards.max() < 0.18


def test_the_pendulum_keeps_its_energy():
  env = pendulum(32)
  state = PendulumState(angle=jnp.array(2.0), velocity=jnp.array(0.0))

  def step(state, action):
    state, _ = env.step(state, action)
    return state, state

  _, states = jax.lax.scan(step, state, jnp.zeros((200, 1)))
  # E = velocity^2 / 2 + 10 cos(angle), -4.16 at the start.
  energy = states.velocity**2 / 2 + 10 * jnp.cos(states.angle)
  np.testing.assert_allclose(energy, 10 * np.cos(2.0), atol=0.8)
  np.testing.assert_allclose(energy.mean(), 10 * np.cos(2.0), atol=0.1)


def test_pendulum_rewards_are_the_height():
  env = pendulum(32)
  for angle, expected in ((0.0, 1.0), (np.pi, 0.0)):
    state = PendulumState(angle=jnp.array(angle), velocity=jnp.array(0.0))
    _, reward = env.step(state, jnp.zeros(1))
    np.testing.assert_allclose(reward, expected, atol=1e-4)


def test_the_point_moves_by_its_equation_and_stops_at_walls():
  env = point(32)
  state = PointState(
    position=jnp.array([0.0, 0.99]),
    velocity=jnp.array([0.04, 0.1]),
    goal=jnp.array([0.37, 1.0]),
  )
  state, reward = env.step(state, jnp.array([1.0, 0.5]))
  # x: 0.75 * 0.04 + 0.04 = 0.07; y runs into the wall at 1 and stops.
  np.testing.assert_allclose(state.position, [0.07, 1.0], atol=1e-6)
  np.testing.assert_allclose(state.velocity, [0.07, 0.0], atol=1e-6)
  # Distance 0.3, one width: half of the reward.
  np.testing.assert_allclose(reward, 0.5, atol=1e-5)


@each_env
def test_actions_are_clipped_and_rewards_stay_in_the_unit_interval(name):
  env = make_jax_env(name, 32)
  state = env.reset(jax.random.key(1))
  big = env.step(state, jnp.full(env.action_dim, 7.0))
  one = env.step(state, jnp.ones(env.action_dim))
  jax.tree.map(np.testing.assert_array_equal, big, one)
  rewards = random_episodes(env, 8).reward
  assert rewards.min() >= 0 and rewards.max() <= 1


@each_env
def test_an_episode_aligns_actions_images_and_rewards(name):
  env = make_jax_env(name, 16)
  init, act = random_policy(env)
  key = jax.random.key(4)
  batch = jax.jit(lambda key: episode(env, init, act, key))(key)
  length = env.episode_length + 1
  assert batch.image.shape == (length, 16, 16, 3)
  assert batch.image.dtype == jnp.uint8
  assert batch.action.shape == (length, env.action_dim)
  assert batch.reward.shape == (length,)
  assert np.all(batch.action[0] == 0) and batch.reward[0] == 0
  # Replay the recorded actions by hand: entry t holds what led to image t.
  step, draw = jax.jit(env.step), jax.jit(env.render)
  state = jax.jit(env.reset)(jax.random.split(key)[0])
  for t in range(length):
    if t:
      state, reward = step(state, batch.action[t])
      np.testing.assert_allclose(batch.reward[t], reward, atol=1e-4)
    image = np.asarray(draw(state), np.int16)
    assert np.abs(image - np.asarray(batch.image[t], np.int16)).max() <= 2


def test_a_policy_sees_the_image_before_it_acts_and_keeps_its_memory():
  env = point(16)

  def act(memory, image, key):
    action = jnp.stack([memory / 100, image.astype(jnp.float32).mean() / 255])
    return action, memory + 1

  init = lambda: jnp.zeros(())
  batch = jax.jit(lambda key: episode(env, init, act, key))(jax.random.key(0))
  steps = np.arange(env.episode_length)
  np.testing.assert_allclose(batch.action[1:, 0], steps / 100, rtol=1e-6)
  seen = np.asarray(batch.image, np.float32).mean((1, 2, 3))[:-1] / 255
  np.testing.assert_allclose(batch.action[1:, 1], seen, rtol=1e-5)


@each_env
def test_episodes_alone_equal_episodes_among_eight(name):
  env = make_jax_env(name, 16)
  init, act = random_policy(env)
  keys = jax.random.split(jax.random.key(0), 8)
  play = lambda key: episode(env, init, act, key)
  together, alone = jax.jit(jax.vmap(play))(keys), jax.jit(play)(keys[3])
  np.testing.assert_allclose(alone.reward, together.reward[3], atol=1e-4)
  np.testing.assert_array_equal(alone.action, together.action[3])
  assert np.any(together.reward[3] != together.reward[4])


@pytest.mark.parametrize("size", [32, 64])
@pytest.mark.parametrize(
  "angle, row, column",
  # The bob is at radius 1 of 1.3, that is at 0.115 and 0.885 of the picture.
  [(0.0, 0.115, 0.5), (np.pi, 0.885, 0.5), (np.pi / 2, 0.5, 0.885)],
)
def test_the_bob_is_drawn_where_the_angle_says(size, angle, row, column):
  state = PendulumState(angle=jnp.array(angle), velocity=jnp.array(0.0))
  image = np.asarray(pendulum(size).render(state))
  assert image.shape == (size, size, 3) and image.dtype == np.uint8
  assert tuple(image[int(row * size), int(column * size)]) == BOB
  mirrored = image[int((1 - row) * size), int((1 - column) * size)]
  assert row == 0.5 == column or tuple(mirrored) == SKY


def test_the_point_is_drawn_on_top_of_the_goal():
  state = PointState(
    position=jnp.array([0.5, 0.5]), velocity=jnp.zeros(2), goal=-jnp.ones(2) / 2
  )
  image = np.asarray(point(64).render(state))
  # 0.5 of 1.15 to the right and up: column 45, row 17.
  assert tuple(image[17, 45]) == (242, 191, 51)
  assert tuple(image[45, 17]) == (76, 191, 89)
  on_goal = state._replace(goal=state.position)
  assert tuple(np.asarray(point(64).render(on_goal))[17, 45]) == (242, 191, 51)


def test_distances_to_shapes():
  # A 2x2 picture of [-2, 2]^2 has its centres at (+-1, +-1), y upwards.
  points = render.pixel_centres(2, 2.0)
  np.testing.assert_array_equal(points[0, 1], [1.0, 1.0])
  disc = render.disc(points, jnp.array([1.0, 0.0]), 0.25)
  np.testing.assert_allclose(disc[0], [np.sqrt(5) - 0.25, 0.75], rtol=1e-6)
  # A rod on the x axis from 0 to 3: beside it 1, beyond its end sqrt 2.
  rod = render.capsule(points, jnp.zeros(2), jnp.array([3.0, 0.0]), 0.0)
  np.testing.assert_allclose(rod[0], [np.sqrt(2), 1.0], rtol=1e-6)


def test_edges_are_soft_and_small_motions_are_visible():
  draw = pendulum(32).render
  at = lambda angle: np.asarray(
    draw(PendulumState(angle=jnp.array(angle), velocity=jnp.array(0.0))),
    np.int16,
  )
  # 0.02 rad move the bob by a quarter of a pixel.
  assert np.abs(at(1.0) - at(1.02)).max() > 10
  # A rim of half-covered pixels separates the bob from the sky below it.
  green = at(np.pi)[22:, :, 1]
  cover = (SKY[1] - green) / (SKY[1] - BOB[1])
  assert np.count_nonzero((cover > 0.1) & (cover < 0.9)) > 4


def test_unknown_names_and_sizes_are_errors():
  with pytest.raises(ValueError, match="'acrobot', expected one of"):
    make_jax_env("acrobot")
  with pytest.raises(ValueError, match="at least 8, got 4"):
    make_jax_env("point", 4)
