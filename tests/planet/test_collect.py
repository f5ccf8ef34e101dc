"""Collection: what an episode holds, and that nothing leaks into it."""

import numpy as np
import pytest

from jplanet.collect import Policy, collect, random_policy
from jplanet.envs import Lockstep, check_env


@pytest.fixture
def lockstep(dial):
  return lambda *lengths: Lockstep(
    [check_env(dial(length), size=8) for length in lengths]
  )


def counting_policy(values):
  """Plays `values[t]` at time t and notes what it was shown."""
  shown = []

  def act(carry, images, t):
    shown.append((t, images.copy()))
    return np.full((len(images), 1), values[t], np.float32), carry + 1

  return Policy(lambda: 0, act), shown


def test_an_entry_holds_the_action_that_led_there(lockstep, dial):
  values = np.array([-1.0, 0.5, 1.0, 0.0])
  policy, shown = counting_policy(values)
  (episode,) = collect(lockstep(4), [7], policy)
  # The reset comes first: no action, no reward, and the first image.
  np.testing.assert_array_equal(episode.action[:, 0], [0, *values])
  np.testing.assert_array_equal(episode.reward, [0, *values])
  pixels = episode.image[:, 0, 0, 0]
  np.testing.assert_array_equal(pixels[1:], dial.shade(values))
  assert episode.image.shape == (5, 8, 8, 3)
  assert episode.action.dtype == episode.reward.dtype == np.float32
  # The policy sees image t before it acts, and never the last one.
  assert [t for t, _ in shown] == [0, 1, 2, 3]
  for t, images in shown:
    np.testing.assert_array_equal(images[0], episode.image[t])


def test_episodes_may_end_at_different_times(lockstep):
  policy, _ = counting_policy(np.linspace(0.1, 0.5, 5))
  short, long = collect(lockstep(2, 5), [0, 1], policy)
  assert len(short.reward) == 3 and len(long.reward) == 6
  np.testing.assert_allclose(short.reward, [0, 0.1, 0.2], rtol=1e-6)
  np.testing.assert_array_equal(short.image[1:], long.image[1:3])


def test_a_seed_decides_the_first_image_and_the_random_actions(lockstep):
  seeds = [3, 4, 3]
  one, other, same = collect(lockstep(6, 6, 6), seeds, random_policy(seeds, 1))
  (alone,) = collect(lockstep(6), [3], random_policy([3], 1))
  for a, b in ((one, same), (one, alone)):
    for x, y in zip(a, b):
      np.testing.assert_array_equal(x, y)
  assert (one.action != other.action).any()
  assert (one.image[0] != other.image[0]).any()


def test_random_actions_fill_the_box():
  policy = random_policy([0], 3)
  rngs, images = policy.init(), np.zeros((1, 8, 8, 3), np.uint8)
  actions = np.concatenate([policy.act(rngs, images, t)[0] for t in range(999)])
  assert actions.shape == (999, 3) and np.abs(actions).max() <= 1
  # A uniform variable on [-1, 1] has mean 0 and variance 1/3.
  np.testing.assert_allclose(actions.mean(0), 0, atol=0.07)
  np.testing.assert_allclose(actions.var(0), 1 / 3, atol=0.04)


def test_a_stop_leaves_no_half_episode(lockstep):
  asked = []

  def should_stop():
    asked.append(None)
    return len(asked) == 3

  policy, shown = counting_policy(np.zeros(9))
  assert collect(lockstep(9), [0], policy, should_stop=should_stop) is None
  assert len(shown) == 2


def test_wrong_numbers_of_seeds_are_named(lockstep):
  policy, _ = counting_policy(np.zeros(2))
  with pytest.raises(ValueError, match="expected 2 seeds"):
    collect(lockstep(2, 2), [0], policy)
