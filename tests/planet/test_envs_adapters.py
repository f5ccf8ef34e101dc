"""Gymnasium's environments, and a user's own."""

import dm_env
import numpy as np
import pytest
from dm_env import specs

from jplanet.envs import check_env, from_gymnasium
from jplanet.envs.adapters import resize

gymnasium = pytest.importorskip("gymnasium")


class Gym(gymnasium.Env):
  """Ends after `end` steps; draws the last action as a grey level."""

  def __init__(self, render_mode="rgb_array", end=3, cut=False, low=-2, high=4):
    self.action_space = gymnasium.spaces.Box(low, high, (2,), np.float32)
    self.observation_space = gymnasium.spaces.Box(-1, 1, (5,), np.float32)
    self.render_mode = render_mode
    self.end, self.cut = end, cut
    self.seen, self.count = [], 0

  def reset(self, *, seed=None, options=None):
    super().reset(seed=seed)
    self.seed_seen, self.count = seed, 0
    return np.zeros(5, np.float32), {}

  def step(self, action):
    assert self.action_space.contains(action)
    self.seen.append(action)
    self.count += 1
    over = self.count >= self.end
    ended, cut = over and not self.cut, over and self.cut
    return np.zeros(5, np.float32), self.count, ended, cut, {}

  def render(self):
    return np.full((20, 30, 3), self.count, np.uint8)


def test_gymnasium_gives_pixels_rewards_and_scaled_actions():
  inner = Gym()
  env = from_gymnasium(inner, size=10)
  env.seed(5)
  first = env.reset()
  assert inner.seed_seen == 5
  assert first.first() and first.observation.shape == (10, 10, 3)
  env.observation_spec().validate(first.observation)
  step = env.step(np.array([-1.0, 0.5], np.float32))
  assert step.mid() and step.reward == 1.0
  assert (step.observation == 1).all()
  # -1 is the low bound -2; 0.5 is three quarters of the way to 4: 2.5.
  np.testing.assert_allclose(inner.seen[0], [-2, 2.5])
  env.reset()
  assert inner.seed_seen is None


@pytest.mark.parametrize("cut,discount", [(False, 0.0), (True, 1.0)])
def test_a_termination_discounts_and_a_truncation_does_not(cut, discount):
  env = from_gymnasium(Gym(end=1, cut=cut))
  env.reset()
  step = env.step([0.0, 0.0])
  assert step.last() and step.discount == discount
  assert env.step([0.0, 0.0]).first()


def test_image_observations_need_no_rendering():
  inner = Gym(render_mode=None)
  inner.observation_space = gymnasium.spaces.Box(0, 255, (8, 8, 3), np.uint8)
  image = np.arange(192, dtype=np.uint8).reshape(8, 8, 3)
  inner.reset = lambda seed=None: (image, {})
  env = from_gymnasium(inner, size=8)
  np.testing.assert_array_equal(env.reset().observation, image)


def test_gymnasium_without_pixels_or_with_choices_is_refused():
  with pytest.raises(ValueError, match="render_mode='rgb_array'"):
    from_gymnasium(Gym(render_mode=None))
  inner = Gym()
  inner.action_space = gymnasium.spaces.Discrete(4)
  with pytest.raises(ValueError, match="continuous"):
    from_gymnasium(inner)
  with pytest.raises(ValueError, match="finite bounds"):
    from_gymnasium(Gym(low=-np.inf, high=np.inf))


class Own(dm_env.Environment):
  """A user's environment that counts its steps in the image."""

  def __init__(self, shape=(16, 16, 3), dtype=np.uint8, wrap=False, low=0.0):
    self.wrap, self.low = wrap, low
    self.image = specs.Array(shape, dtype)
    self.actions = specs.BoundedArray((1,), np.float64, low, 1.0)
    self.seen, self.count = [], 0

  def observation_spec(self):
    return {"pixels": self.image, "more": 1} if self.wrap else self.image

  def action_spec(self):
    return self.actions

  def see(self):
    image = np.full(self.image.shape, self.count, self.image.dtype)
    return {"pixels": image} if self.wrap else image

  def reset(self):
    return dm_env.restart(self.see())

  def step(self, action):
    self.seen.append(action)
    self.count += 1
    return dm_env.transition(1.0, self.see(), 0.5)


@pytest.mark.parametrize("wrap", [False, True])
def test_a_users_environment_gives_plain_images_and_scaled_actions(wrap):
  inner = Own(wrap=wrap)
  env = check_env(inner, size=8)
  env.seed(1)
  image = env.reset().observation
  assert image.shape == (8, 8, 3) and image.dtype == np.uint8
  step = env.step(np.array([0.0], np.float32))
  assert (step.observation == 1).all()
  assert step.reward == 1.0 and step.discount == 0.5
  # The bounds are [0, 1], so that 0 is their middle.
  assert inner.seen[0] == 0.5 and inner.seen[0].dtype == np.float64
  with pytest.raises(ValueError, match="finite"):
    env.step([np.nan])


@pytest.mark.parametrize(
  "env,message",
  [
    (object(), "reset"),
    (Own(dtype=np.float32), "uint8"),
    (Own(shape=(3, 16, 16)), r"\[H, W, 3\]"),
    (Own(low=-np.inf), "finite bounds"),
  ],
)
def test_an_environment_that_does_not_fit_is_named(env, message):
  with pytest.raises(ValueError, match=message):
    check_env(env)


def test_states_and_choices_are_refused():
  env = Own(wrap=True)
  env.observation_spec = lambda: {"position": env.image}
  with pytest.raises(ValueError, match="pixels"):
    check_env(env)
  env = Own()
  env.actions = specs.DiscreteArray(3)
  with pytest.raises(ValueError, match="continuous"):
    check_env(env)


def test_resizing_takes_the_mean_over_area():
  image = np.random.RandomState(0).randint(0, 256, (8, 12, 3)).astype(np.uint8)
  small = resize(image, 4)
  blocks = image.reshape(4, 2, 4, 3, 3).mean((1, 3))
  np.testing.assert_allclose(small, np.floor(blocks + 0.5), atol=1)
  # Twice as large repeats every pixel.
  square = image[:, :8]
  np.testing.assert_array_equal(
    resize(square, 16), square.repeat(2, 0).repeat(2, 1)
  )
  assert resize(square, 8) is square
  # No ratio changes a flat image.
  flat = np.full((7, 5, 3), 201, np.uint8)
  assert (resize(flat, 11) == 201).all()
