"""The environments of a run, as its configuration asks for them."""

import json
import math
import os
from collections.abc import Callable
from functools import partial

import dm_env
from ml_collections import ConfigDict

from jlejepa.runtime.errors import UserError, require
from jlejepa.runtime.run_folder import resolve
from jplanet.check import split_tasks
from jplanet.envs import Lockstep, WorkerPool, make_env
from jplanet.envs.adapters import make_checked_env
from jplanet.envs.padding import make_padded_env
from jplanet.envs.worker import importable

EnvMaker = Callable[[], dm_env.Environment]
# Every task of the suite lasts that many control steps.
SUITE_STEPS = 1000


class EnvFactory:
  """Makes groups of environments in lockstep.

  Attributes:
    tasks: the names of the tasks, one after the other in every group.
    action_repeats: control steps per decision of each task.
    action_dim: `A`, the largest of the tasks.
  """

  def __init__(self, config: ConfigDict, maker: EnvMaker | None = None):
    """Looks at one environment of each task.

    Args:
      config: the run's.
      maker: makes an environment of the user's own in place of the task's; it
        is then checked and wrapped by `jplanet.envs.check_env`.

    Raises:
      UserError: an unknown task, an action space that is not continuous, a
        renderer that does not work here, a chunk longer than an episode, or a
        maker that worker processes are to call and cannot import.
    """
    self._config, self._maker = config.env, maker
    self.tasks = split_tasks(config.task) if maker is None else [config.task]
    samples = []
    try:
      if maker is not None and config.env.workers:
        importable(maker)
      samples = [self._make(task) for task in self.tasks]
    except (ValueError, RuntimeError, ImportError) as error:
      raise UserError(str(error)) from error
    self.action_dim = max(env.action_spec().shape[0] for env in samples)
    self.action_repeats = [getattr(e, "action_repeat", 1) for e in samples]
    self.renderer = getattr(samples[0], "renderer", "unknown")
    for env in samples:
      env.close()
    if maker is None:
      # How long an environment of the user's own lasts, the seed episodes tell.
      decisions = math.ceil(SUITE_STEPS / max(self.action_repeats))
      require_chunk(config.train.chunk, decisions + 1)

  def _maker_of(self, task: str) -> EnvMaker:
    if self._maker is not None:
      return partial(make_checked_env, self._maker, self._config.size)
    return partial(make_padded_env, task, self.action_dim, **self._options())

  def _options(self) -> dict:
    env = self._config
    return dict(
      action_repeat=env.action_repeat or None,
      size=env.size,
      renderer=env.renderer,
      camera=env.camera,
      supersample=env.supersample,
    )

  def _make(self, task: str) -> dm_env.Environment:
    if self._maker is not None:
      return make_checked_env(self._maker, self._config.size)
    return make_env(task, **self._options())

  def group(self, count: int, *, workers: int = 0) -> Lockstep | WorkerPool:
    """Makes `count` environments, the tasks taking turns.

    Args:
      count: `N`.
      workers: processes to spread them over; 0 keeps them in this one.
    """
    tasks = [self.tasks[i % len(self.tasks)] for i in range(count)]
    makers = [self._maker_of(task) for task in tasks]
    if workers:
      return WorkerPool(makers, num_workers=min(workers, count))
    return Lockstep([make() for make in makers])


def keep_renderer(config: ConfigDict, workdir: str | os.PathLike) -> ConfigDict:
  """Replaces "auto" by what drew the pixels of the run in `workdir`.

  On another machine "auto" may choose otherwise, and the agent would see
  pixels that it was not trained on. Where there is no run yet, nothing changes.
  """
  try:
    text = (resolve(workdir) / "environment.json").read_text()
    before = str(json.loads(text)["renderer"]).partition(":")[0]
  except (OSError, ValueError, KeyError, TypeError):
    return config
  if config.env.renderer != "auto" or before not in ("gl", "ray"):
    return config
  config = config.copy_and_resolve_references()
  config.env.renderer = before
  return config


def require_chunk(chunk: int, entries: int) -> None:
  """Raises UserError if a chunk is longer than an episode of `entries`."""
  require(
    chunk <= entries,
    f"config.train.chunk={chunk} is longer than an episode, which has"
    f" {entries} entries ({entries - 1} decisions and the reset): set it to"
    f" {entries} or less",
  )
