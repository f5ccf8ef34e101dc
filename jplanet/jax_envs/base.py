"""An environment as a tuple of pure functions."""

from collections.abc import Callable
from typing import Any, NamedTuple

from jplanet.types import Array, Key


class JaxEnv(NamedTuple):
  """A pixel environment that compiles, for one episode; `vmap` adds batches.

  Attributes:
    name: of the task.
    reset: `(key) -> state`, the first state of an episode.
    step: `(state, action [A]) -> (state, reward [])`, one decision; the action
      is clipped to [-1, 1], the reward lies in [0, 1].
    render: `(state) -> image`, uint8 `[S, S, 3]`.
    action_dim: `A`.
    episode_length: decisions, after which time is up.
  """

  name: str
  reset: Callable[[Key], Any]
  step: Callable[[Any, Array], tuple[Any, Array]]
  render: Callable[[Any], Array]
  action_dim: int
  episode_length: int
