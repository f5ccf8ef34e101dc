"""Trap 11: actions longer than a task has, and which part of them counts."""

import dm_env
import numpy as np
import pytest
from dm_env import specs

from jplanet.collect import collect, random_policy
from jplanet.envs import Lockstep
from jplanet.envs.padding import PadActions

PADDED, LENGTH = 3, 5


class Recorder(dm_env.Environment):
  """Keeps the actions that arrive, and shows each one as a shade."""

  def __init__(self, own=1):
    self.arrived, self._own = [], own

  def _image(self, value):
    return np.full((8, 8, 3), value, np.uint8)

  def reset(self):
    return dm_env.restart(self._image(0))

  def step(self, action):
    self.arrived.append(np.array(action))
    image = self._image(np.round(127.5 + 127.5 * action[0]))
    if len(self.arrived) == LENGTH:
      return dm_env.truncation(float(action[0]), image)
    return dm_env.transition(float(action[0]), image)

  def observation_spec(self):
    return specs.BoundedArray((8, 8, 3), np.uint8, 0, 255)

  def action_spec(self):
    return specs.BoundedArray((self._own,), np.float32, -1, 1)


@pytest.mark.parametrize("own", [1, 2])
def test_the_first_of_a_padded_action_arrive_and_all_are_stored(own):
  env = Recorder(own)
  padded = PadActions(env, PADDED)
  assert padded.action_spec().shape == (PADDED,)
  (episode,) = collect(Lockstep([padded]), [7], random_policy([7], PADDED))
  assert episode.action.shape == (LENGTH + 1, PADDED)
  np.testing.assert_array_equal(episode.action[1:, :own], env.arrived)
  # What did not arrive is stored all the same: the model sees what was planned.
  assert (np.abs(episode.action[1:, own:]) > 0).all()
  assert len({*episode.action[1:].ravel()}) == LENGTH * PADDED
  np.testing.assert_array_equal(episode.reward[1:], episode.action[1:, 0])
  shade = np.round(127.5 + 127.5 * episode.action[1:, 0]).astype(np.uint8)
  np.testing.assert_array_equal(episode.image[1:, 0, 0, 0], shade)


def test_a_task_of_longer_actions_is_refused():
  with pytest.raises(ValueError, match="action of 3 is too short for a task"):
    PadActions(Recorder(own=4), PADDED)
