"""Several environments that advance together, in one process."""

from collections.abc import Sequence

import dm_env
import numpy as np

from jplanet.envs.actions import check_actions


class Lockstep:
  """Steps several environments together, each for one episode at a time.

  An environment whose episode has ended idles until the next `reset`: it
  repeats its last image with a reward of 0 and stays done. `WorkerPool` has
  the same interface and gives the same numbers.

  Attributes:
    num_envs: number of environments, `N`.
    action_dim: length of an action, `A`.
    image_shape: `(S, S, 3)`.
    renderer: what draws, as every environment names it.
    lost: bool `[N]`, episodes that a worker process took with it; here none.
    restarts: worker processes replaced so far; here none.
  """

  def __init__(self, envs: Sequence[dm_env.Environment]):
    """Takes environments such as `make_env` and `check_env` return.

    Raises:
      ValueError: there are none, or they differ in actions or images.
    """
    self._envs = list(envs)
    kinds = {
      (env.action_spec().shape, env.observation_spec().shape)
      for env in self._envs
    }
    if len(kinds) != 1:
      raise ValueError(
        "environments must have the same actions and images, and there must "
        f"be one at least: got {sorted(kinds)}"
      )
    (((self.action_dim,), self.image_shape),) = kinds
    self.num_envs = len(self._envs)
    self.renderer = getattr(self._envs[0], "renderer", "unknown")
    self.lost, self.restarts = np.zeros(self.num_envs, bool), 0
    self._images = np.zeros((self.num_envs, *self.image_shape), np.uint8)
    self._done = None

  @property
  def physics_errors(self) -> int:
    """Episodes so far that a diverging simulation cut short."""
    return sum(getattr(env, "physics_errors", 0) for env in self._envs)

  def reset(self, seeds: Sequence[int]) -> np.ndarray:
    """Starts an episode everywhere.

    Args:
      seeds: one for each environment; those without a `seed` method go on
        with their own randomness.

    Returns:
      The first images, uint8 `[N, S, S, 3]`.

    Raises:
      ValueError: there is another number of seeds.
    """
    check_seeds(seeds, self.num_envs)
    for i, (env, seed) in enumerate(zip(self._envs, seeds)):
      if hasattr(env, "seed"):
        env.seed(int(seed))
      self._images[i] = env.reset().observation
    self._done = np.zeros(self.num_envs, bool)
    return self._images.copy()

  def step(
    self, actions: np.ndarray
  ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Takes one decision everywhere.

    Args:
      actions: `[N, A]` in [-1, 1].

    Returns:
      Images uint8 `[N, S, S, 3]`, rewards float32 `[N]`, and whether each
      episode has ended, bool `[N]`.

    Raises:
      ValueError: the actions have another shape or are not finite, or no
        episode was started.
    """
    actions = check_actions(actions, (self.num_envs, self.action_dim))
    if self._done is None:
      raise ValueError("no episode has been started: call reset first")
    rewards = np.zeros(self.num_envs, np.float32)
    for i, env in enumerate(self._envs):
      if not self._done[i]:
        step = env.step(actions[i])
        self._images[i] = step.observation
        rewards[i] = step.reward
        self._done[i] = step.last()
    return self._images.copy(), rewards, self._done.copy()

  def states(self) -> list[dict[str, np.ndarray]]:
    """Returns what each simulator knows and the images only show.

    Returns:
      For each environment its `state()`: by quantity, float64 `[n]`.

    Raises:
      ValueError: an environment has no `state()`.
    """
    for env in self._envs:
      if not callable(getattr(env, "state", None)):
        raise ValueError(
          "the environment has no state(): to compare with the simulator, "
          "give it one that returns a dict of vectors"
        )
    return [env.state() for env in self._envs]

  def close(self) -> None:
    """Closes all environments."""
    for env in self._envs:
      env.close()


def check_seeds(seeds: Sequence[int], count: int) -> None:
  """Raises a ValueError unless there are `count` seeds."""
  if len(seeds) != count:
    raise ValueError(f"expected {count} seeds, one each, got {len(seeds)}")
