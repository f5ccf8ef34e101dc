"""Longer actions than a task has, so that one agent can act in several."""

import dm_env
import numpy as np
from dm_env import specs

from jplanet.envs.suite import make_env


class PadActions(dm_env.Environment):
  """Takes actions `[action_dim]` and passes on the first ones of its task."""

  def __init__(self, env: dm_env.Environment, action_dim: int):
    """Wraps `env`.

    Raises:
      ValueError: if the task's own actions are longer.
    """
    (self._own,) = env.action_spec().shape
    if self._own > action_dim:
      raise ValueError(
        f"an action of {action_dim} is too short for a task of {self._own}"
      )
    self._env = env
    self._action_dim = action_dim

  def __getattr__(self, name: str):
    return getattr(self._env, name)

  def reset(self) -> dm_env.TimeStep:
    return self._env.reset()

  def step(self, action: np.ndarray) -> dm_env.TimeStep:
    return self._env.step(np.asarray(action)[: self._own])

  def observation_spec(self) -> specs.BoundedArray:
    return self._env.observation_spec()

  def action_spec(self) -> specs.BoundedArray:
    spec = self._env.action_spec()
    return specs.BoundedArray(
      (self._action_dim,), spec.dtype, -1.0, 1.0, name=spec.name
    )


def make_padded_env(task: str, action_dim: int, **kwargs) -> dm_env.Environment:
  """Makes a suite task with actions of `action_dim` (see `make_env`)."""
  return PadActions(make_env(task, **kwargs), action_dim)
