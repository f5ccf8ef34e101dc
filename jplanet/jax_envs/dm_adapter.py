"""A JAX environment behind the interface of dm_env, for the training loop."""

from typing import Any

import dm_env
import jax
import numpy as np
from dm_env import specs

from jplanet.jax_envs.base import JaxEnv


class DmEnv(dm_env.Environment):
  """Wraps a `JaxEnv` as a `dm_env.Environment` on the host.

  Observations are uint8 `[S, S, 3]`, actions float32 `[A]` in [-1, 1]. After
  `episode_length` decisions an episode ends with discount 1: a time limit is no
  termination.

  Attributes:
    renderer: "jax", to be kept next to every score.
    action_repeat: 1; the repeat is inside the environment.
    physics_errors: 0; nothing here diverges.
  """

  renderer = "jax"
  action_repeat = 1
  physics_errors = 0

  def __init__(self, env: JaxEnv, seed: int = 0):
    """Compiles `env`; `seed` is that of the first episode, see `seed`."""

    def reset(key):
      state = env.reset(key)
      return state, env.render(state)

    def step(state, action):
      state, reward = env.step(state, action)
      return state, reward, env.render(state)

    self._env = env
    self._reset, self._step = jax.jit(reset), jax.jit(step)
    image = jax.eval_shape(reset, jax.random.key(0))[1]
    self._image_shape = image.shape
    self._state = None
    self._steps = None  # None until an episode runs.
    self.seed(seed)

  def seed(self, seed: int) -> None:
    """Makes the next `reset` a function of `seed` alone."""
    self._key = jax.random.key(seed)

  def reset(self) -> dm_env.TimeStep:
    """Starts an episode."""
    self._key, reset_key = jax.random.split(self._key)
    self._state, image = self._reset(reset_key)
    self._steps = 0
    return dm_env.restart(np.asarray(image))

  def step(self, action: Any) -> dm_env.TimeStep:
    """Takes one decision, or resets where no episode runs.

    Args:
      action: `[A]`, clipped to [-1, 1].

    Raises:
      ValueError: the action has another shape or is not finite.
    """
    if self._steps is None:
      return self.reset()
    action = np.asarray(action, np.float32)
    expected = (self._env.action_dim,)
    if action.shape != expected:
      raise ValueError(f"action must have shape {expected}, got {action.shape}")
    if not np.all(np.isfinite(action)):
      raise ValueError(f"action must be finite, got {action}")
    self._state, reward, image = self._step(self._state, action)
    reward, image = float(reward), np.asarray(image)
    self._steps += 1
    if self._steps < self._env.episode_length:
      return dm_env.transition(reward, image)
    self._steps = None
    return dm_env.truncation(reward, image)

  def observation_spec(self) -> specs.BoundedArray:
    """Describes the pixels, uint8 `[S, S, 3]`."""
    return specs.BoundedArray(self._image_shape, np.uint8, 0, 255, "pixels")

  def action_spec(self) -> specs.BoundedArray:
    """Describes the actions, float32 `[A]` in [-1, 1]."""
    shape = (self._env.action_dim,)
    return specs.BoundedArray(shape, np.float32, -1, 1, "action")
