"""Episodes with the simulator's state at every entry, for diagnostics."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from jlejepa.runtime.errors import UserError
from jlejepa.runtime.progress import Progress
from jplanet.collect import collect, planned_policy
from jplanet.evaluate import AT_ONCE
from jplanet.replay import Episode
from jplanet.setup import DIAGNOSE, Parts, episode_seeds
from jplanet.setup_envs import EnvFactory
from jplanet.types import Key, Params

States = dict[str, np.ndarray]


class Recorded(NamedTuple):
  """Episodes of one task, padded to the longest by zeros.

  Attributes:
    image: uint8 `[B, T, S, S, 3]`.
    action: `[B, T, A]`.
    states: by quantity, float64 `[B, T, n]`.
    valid: bool `[B, T]`, False in the padding and where the simulation had
      diverged.
  """

  image: np.ndarray
  action: np.ndarray
  states: States
  valid: np.ndarray


class Recorder:
  """Environments in lockstep that note the simulator's state at every entry.

  Attributes:
    states: for every entry of the running episodes, what `Lockstep.states`
      gave.
  """

  def __init__(self, envs):
    self._envs = envs
    self.action_dim = envs.action_dim
    self.states: list[list[States]] = []

  def reset(self, seeds: Sequence[int]) -> np.ndarray:
    """Starts an episode everywhere.

    Raises:
      UserError: an environment has no `state()`.
    """
    images = self._envs.reset(seeds)
    try:
      self.states = [self._envs.states()]
    except ValueError as error:
      raise UserError(str(error)) from error
    return images

  def step(
    self, actions: np.ndarray
  ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Takes one decision everywhere."""
    result = self._envs.step(actions)
    self.states.append(self._envs.states())
    return result


def record_episodes(
  factory: EnvFactory,
  parts: Parts,
  params: Params,
  key: Key,
  *,
  seed: int,
  episodes: int,
  noise: float,
  quiet: bool = True,
) -> dict[str, Recorded]:
  """Runs episodes of the agent and notes the simulator's states.

  Args:
    factory: makes the environments, all in this process.
    parts: the run's.
    params: the weights to act with.
    key: for the agent; consumed.
    seed: of the episodes.
    episodes: for each task.
    noise: standard deviation of the exploration noise.
    quiet: print no progress.

  Returns:
    The episodes by task.

  Raises:
    UserError: an environment has no `state()`.
  """
  tasks = len(factory.tasks)
  wanted = episodes * tasks
  count = tasks * max(1, min(episodes, AT_ONCE // tasks))
  envs = factory.group(count)
  recorder = Recorder(envs)
  progress = Progress(wanted, quiet=quiet, unit="episode")
  done: list[tuple[Episode, States]] = []
  try:
    while len(done) < wanted:
      progress.update(len(done))
      seeds = episode_seeds(seed, DIAGNOSE, len(done), count)
      policy = planned_policy(
        parts.batched_act, parts.agent, params, key, seeds, noise
      )
      for i, episode in enumerate(collect(recorder, seeds, policy)):
        rows = [now[i] for now in recorder.states[: len(episode.image)]]
        done.append((episode, _columns(rows)))
  finally:
    envs.close()
    progress.close()
  return {
    task: pad_episodes(done[i:wanted:tasks])
    for i, task in enumerate(factory.tasks)
  }


def pad_episodes(episodes: Sequence[tuple[Episode, States]]) -> Recorded:
  """Stacks episodes and their states, `[T, n]` each, of any lengths `T`."""
  longest = max(len(episode.image) for episode, _ in episodes)

  def stack(arrays):
    return np.stack(
      [
        np.pad(x, [(0, longest - len(x))] + [(0, 0)] * (x.ndim - 1))
        for x in arrays
      ]
    )

  names = list(episodes[0][1])
  states = {name: stack([s[name] for _, s in episodes]) for name in names}
  valid = stack([np.ones(len(episode.image), bool) for episode, _ in episodes])
  for values in states.values():
    valid &= np.isfinite(values).all(-1)
  return Recorded(
    image=stack([episode.image for episode, _ in episodes]),
    action=stack([episode.action for episode, _ in episodes]),
    states=states,
    valid=valid,
  )


def _columns(rows: list[States]) -> States:
  return {
    name: np.stack([np.asarray(row[name], np.float64).ravel() for row in rows])
    for name in rows[0]
  }
