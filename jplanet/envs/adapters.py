"""Environments from elsewhere: Gymnasium's, and a user's own."""

from collections.abc import Callable, Mapping
from typing import Any

import dm_env
import numpy as np
from dm_env import specs

from jplanet.envs.actions import ActionScale


def make_checked_env(
  maker: Callable[[], dm_env.Environment], size: int
) -> "PixelEnv":
  """Makes a user's environment and checks it (see `check_env`)."""
  return check_env(maker(), size=size)


def check_env(env: dm_env.Environment, *, size: int = 64) -> "PixelEnv":
  """Checks a user's environment and gives it the interface of `make_env`.

  Args:
    env: observations must be uint8 `[H, W, 3]`, or a mapping that has such
      "pixels"; actions must be one bounded vector of floats.
    size: image side wanted, in pixels.

  Returns:
    An environment with observations uint8 `[size, size, 3]` and actions
    float32 `[A]` in [-1, 1].

  Raises:
    ValueError: the environment does not fit; the message says where.
  """
  for name in ("reset", "step", "action_spec", "observation_spec"):
    if not callable(getattr(env, name, None)):
      raise ValueError(f"env must be a dm_env.Environment: it has no {name}()")
  seen = env.observation_spec()
  if isinstance(seen, Mapping):
    if "pixels" not in seen:
      raise ValueError(
        f"observations need an entry 'pixels', got {sorted(seen)}"
      )
    seen = seen["pixels"]
  if not _is_image(seen.shape, seen.dtype):
    raise ValueError(
      "observations must be uint8 images [H, W, 3], got "
      f"{seen.dtype} {tuple(seen.shape)}"
    )
  done = env.action_spec()
  if (
    not isinstance(done, specs.BoundedArray)
    or isinstance(done, specs.DiscreteArray)
    or not np.issubdtype(done.dtype, np.floating)
  ):
    raise ValueError(
      f"actions must be a bounded vector of floats, got {done!r}: "
      "the planner searches continuous actions only"
    )
  low = np.broadcast_to(done.minimum, done.shape)
  high = np.broadcast_to(done.maximum, done.shape)
  return PixelEnv(env, ActionScale(low, high), done.dtype, size)


def from_gymnasium(env: Any, *, size: int = 64) -> "PixelEnv":
  """Turns a Gymnasium environment into one with pixels.

  Images come from the observation where it is one, and else from
  `env.render()`, for which the environment must be made with
  `render_mode="rgb_array"`. A termination has discount 0, a truncation 1.

  Args:
    env: a `gymnasium.Env` with a Box action space.
    size: image side wanted, in pixels.

  Raises:
    ValueError: the actions are not a bounded vector of floats, or there are
      no pixels.
  """
  space = env.action_space
  if not hasattr(space, "low") or not np.issubdtype(space.dtype, np.floating):
    raise ValueError(
      f"actions must be a Box of floats, got {space}: "
      "the planner searches continuous actions only"
    )
  seen = env.observation_space
  direct = getattr(seen, "shape", None) and _is_image(seen.shape, seen.dtype)
  if not direct and getattr(env, "render_mode", None) != "rgb_array":
    raise ValueError(
      f"no pixels: observations are {seen}, so make the environment with "
      "render_mode='rgb_array'"
    )
  return PixelEnv(
    _Gymnasium(env, bool(direct)),
    ActionScale(np.ravel(space.low), np.ravel(space.high)),
    space.dtype,
    size,
  )


class PixelEnv(dm_env.Environment):
  """An environment with square uint8 images and actions in [-1, 1].

  Attributes:
    renderer: as the environment names what draws, "own" where it does not.
    action_repeat: as the environment names it, 1 where it does not.
    state: the environment's own `state()`, where it has one.
  """

  def __init__(
    self,
    env: dm_env.Environment,
    scale: ActionScale,
    action_dtype: Any,
    size: int,
  ):
    self.renderer = getattr(env, "renderer", "own")
    self.action_repeat = getattr(env, "action_repeat", 1)
    if hasattr(env, "state"):
      self.state = env.state
    self._env = env
    self._scale = scale
    self._dtype = action_dtype
    self._size = size

  @property
  def physics_errors(self) -> int:
    """Episodes that a diverging simulation cut short, where it counts them."""
    return getattr(self._env, "physics_errors", 0)

  def seed(self, seed: int) -> None:
    """Passes a seed for the next episode on to environments that take one."""
    if hasattr(self._env, "seed"):
      self._env.seed(seed)

  def reset(self) -> dm_env.TimeStep:
    """Starts an episode."""
    return self._see(self._env.reset())

  def step(self, action: Any) -> dm_env.TimeStep:
    """Takes one action `[A]` in [-1, 1].

    Raises:
      ValueError: the action has another shape or is not finite.
    """
    return self._see(self._env.step(self._scale(action).astype(self._dtype)))

  def observation_spec(self) -> specs.BoundedArray:
    """Describes the pixels, uint8 `[S, S, 3]`."""
    shape = (self._size, self._size, 3)
    return specs.BoundedArray(shape, np.uint8, 0, 255, "pixels")

  def action_spec(self) -> specs.BoundedArray:
    """Describes the actions, float32 `[A]` in [-1, 1]."""
    return self._scale.spec()

  def close(self) -> None:
    """Closes the environment."""
    self._env.close()

  def _see(self, step):
    image = step.observation
    if isinstance(image, Mapping):
      image = image["pixels"]
    image = np.asarray(image)
    if not _is_image(image.shape, image.dtype):
      raise ValueError(
        "observations must be uint8 images [H, W, 3], got "
        f"{image.dtype} {image.shape}"
      )
    return step._replace(observation=resize(image, self._size))


def resize(image: np.ndarray, size: int) -> np.ndarray:
  """Resizes an image `[H, W, 3]` to `[size, size, 3]` by mean over area."""
  if image.shape[:2] == (size, size):
    return image
  rows, columns = (_shares(length, size) for length in image.shape[:2])
  mixed = np.einsum("ih,hwc->iwc", rows, image.astype(np.float32))
  mixed = np.einsum("jw,iwc->ijc", columns, mixed)
  return (mixed + 0.5).astype(np.uint8)


def _shares(length, size):
  """Returns `[size, length]`: the share of each old pixel in each new one."""
  edges = np.arange(size + 1) * length / size
  old = np.arange(length)
  first = np.maximum(edges[:-1, None], old)
  last = np.minimum(edges[1:, None], old + 1)
  return (np.maximum(last - first, 0) * size / length).astype(np.float32)


def _is_image(shape, dtype):
  return dtype == np.uint8 and len(shape) == 3 and shape[-1] == 3


class _Gymnasium(dm_env.Environment):
  """A Gymnasium environment under dm_env's names; actions keep their own."""

  renderer = "gymnasium"

  def __init__(self, env, direct):
    self._env = env
    self._direct = direct
    self._seed = None
    self._running = False

  def seed(self, seed):
    self._seed = int(seed)

  def reset(self):
    observation, _ = self._env.reset(seed=self._seed)
    self._seed = None
    self._running = True
    return dm_env.restart(self._image(observation))

  def step(self, action):
    if not self._running:
      return self.reset()
    action = action.reshape(self._env.action_space.shape)
    observation, reward, ended, cut, _ = self._env.step(action)
    image = self._image(observation)
    if ended or cut:
      self._running = False
      discount = 0.0 if ended else 1.0
      return dm_env.TimeStep(
        dm_env.StepType.LAST, float(reward), discount, image
      )
    return dm_env.transition(float(reward), image)

  def observation_spec(self):
    return None

  def action_spec(self):
    return None

  def close(self):
    self._env.close()

  def _image(self, observation):
    return observation if self._direct else self._env.render()
