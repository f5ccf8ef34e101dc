"""The compiled environments behind dm_env's interface."""

import dm_env
import jax
import numpy as np
import pytest

from jplanet.jax_envs.dm_adapter import DmEnv
from jplanet.jax_envs.pendulum import pendulum
from jplanet.jax_envs.point import point


def test_the_adapter_is_a_dm_env_environment():
  env = DmEnv(point(16, episode_length=3), seed=0)
  step = env.reset()
  assert step.first() and step.reward is None
  env.observation_spec().validate(step.observation)
  action = env.action_spec().generate_value()
  kinds = [env.step(action) for _ in range(3)]
  assert [s.step_type for s in kinds] == [
    dm_env.StepType.MID, dm_env.StepType.MID, dm_env.StepType.LAST
  ]  # fmt: skip
  assert kinds[-1].discount == 1.0, "a time limit is no termination"
  assert isinstance(kinds[0].reward, float)
  assert env.step(action).first(), "a step after the end starts an episode"
  env.close()


def test_the_adapter_agrees_with_the_environment():
  env = pendulum(16)
  adapter = DmEnv(env, seed=5)
  first = adapter.reset()
  state = env.reset(jax.random.split(jax.random.key(5))[1])
  np.testing.assert_array_equal(first.observation, env.render(state))
  for _ in range(5):
    action = np.array([0.7], np.float32)
    state, reward = env.step(state, action)
    got = adapter.step(action)
    np.testing.assert_allclose(got.reward, reward, atol=1e-5)
  difference = np.int16(got.observation) - np.int16(env.render(state))
  assert np.abs(difference).max() <= 1


def test_a_seed_decides_the_adapters_next_episodes():
  one, two = DmEnv(point(16), seed=0), DmEnv(point(16), seed=1)
  two.reset()
  assert np.any(one.reset().observation != two.reset().observation)
  one.seed(7)
  two.seed(7)
  for _ in range(2):
    a, b = one.reset().observation, two.reset().observation
    np.testing.assert_array_equal(a, b)
  assert np.any(one.reset().observation != a), "each episode is a new one"


def test_the_adapter_names_a_bad_action():
  env = DmEnv(point(16))
  env.reset()
  with pytest.raises(ValueError, match=r"shape \(2,\), got \(1,\)"):
    env.step(np.zeros(1))
  with pytest.raises(ValueError, match="must be finite"):
    env.step(np.array([np.nan, 0.0]))
