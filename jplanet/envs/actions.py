"""What an environment accepts as an action."""

from typing import Any

import numpy as np
from dm_env import specs

# MuJoCo writes this for an actuator without bounds.
_UNBOUNDED = 1e10


class ActionScale:
  """Checks actions in [-1, 1] and maps them to an environment's own bounds.

  Attributes:
    dim: length of an action.
  """

  def __init__(self, low: Any, high: Any):
    """Takes the environment's bounds, `[A]` each.

    Raises:
      ValueError: the bounds are not those of a continuous vector.
    """
    low, high = np.asarray(low, np.float64), np.asarray(high, np.float64)
    if low.ndim != 1 or low.shape != high.shape or not low.size:
      raise ValueError(
        f"actions must be one vector, got bounds of shape {low.shape}"
      )
    if not np.all(np.abs([low, high]) < _UNBOUNDED) or np.any(low >= high):
      raise ValueError(
        f"actions need finite bounds, got low {low} and high {high}: "
        "rescale or clip them in the environment"
      )
    self.dim = low.size
    self._low, self._high = low, high
    self._plain = bool(np.all(low == -1) and np.all(high == 1))

  def spec(self) -> specs.BoundedArray:
    """Describes the actions, float32 `[A]` in [-1, 1]."""
    return specs.BoundedArray((self.dim,), np.float32, -1, 1, "action")

  def __call__(self, action: Any) -> np.ndarray:
    """Returns the environment's own action `[A]`; clips what lies outside.

    Raises:
      ValueError: the action has another shape or is not finite.
    """
    action = check_actions(action, (self.dim,))
    action = np.clip(action, -1, 1)
    if self._plain:
      return action
    return self._low + (action + 1) / 2 * (self._high - self._low)


def check_actions(action: Any, shape: tuple[int, ...]) -> np.ndarray:
  """Returns an array of actions.

  Raises:
    ValueError: it has another shape or is not finite.
  """
  action = np.asarray(action)
  if action.shape != shape:
    raise ValueError(f"action must have shape {shape}, got {action.shape}")
  if not np.issubdtype(action.dtype, np.number) or not np.all(
    np.isfinite(action)
  ):
    raise ValueError(f"action must be finite numbers, got {action}")
  return action
