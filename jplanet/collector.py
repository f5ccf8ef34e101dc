"""Training episodes, played beside the updates of the model."""

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import NamedTuple

from jplanet.collect import Policy, collect
from jplanet.envs import Lockstep, WorkerPool
from jplanet.replay import Episode

POLL_SECONDS = 0.1


class Round(NamedTuple):
  """One episode of every environment, and what it took.

  Attributes:
    episodes: one per environment.
    seconds: the time from the first reset to the last step.
    diverged: episodes that a diverging simulation cut short.
    restarts: worker processes that had to be replaced.
  """

  episodes: list[Episode]
  seconds: float
  diverged: int
  restarts: int


class Collector:
  """Plays rounds of episodes in a thread of its own; one at a time.

  An episode is a function of its seed and its policy, so what is collected does
  not depend on when `finish` is called. The environments are made, stepped and
  closed in that one thread: an OpenGL context is of use only where it was
  opened. Use it in a `with` block: leaving it gives up a round that nobody
  waits for, and closes the environments.

  Args:
    make_envs: makes the environments in lockstep; its errors are raised here.
  """

  def __init__(self, make_envs: Callable[[], Lockstep | WorkerPool]):
    self._cancel = threading.Event()
    self._pool = ThreadPoolExecutor(1, thread_name_prefix="collect")
    self._future: Future | None = None
    try:
      self._envs = self._pool.submit(make_envs).result()
    except BaseException:
      self._pool.shutdown(wait=False)
      raise

  def __enter__(self) -> "Collector":
    return self

  def __exit__(self, *exception: object) -> None:
    try:
      self.cancel()
    finally:
      closed = self._pool.submit(self._envs.close)
      self._pool.shutdown()
    closed.result()

  @property
  def under_way(self) -> bool:
    """Whether a round was started and not yet fetched."""
    return self._future is not None

  def start(self, seeds: Sequence[int], policy: Policy) -> None:
    """Begins a round; its errors are raised by `finish`."""
    if self.under_way:
      raise RuntimeError("a round is under way: call finish first")
    self._cancel.clear()
    self._future = self._pool.submit(self._play, seeds, policy)

  def finish(self, should_stop: Callable[[], bool]) -> Round | None:
    """Returns the round that was started; None if asked to stop meanwhile."""
    future = self._future
    while not wait([future], timeout=POLL_SECONDS).done:
      if should_stop():
        self._cancel.set()
    self._future = None
    return future.result()

  def cancel(self) -> None:
    """Gives up the round under way, if there is one."""
    if self.under_way:
      self.finish(lambda: True)

  def _play(self, seeds: Sequence[int], policy: Policy) -> Round | None:
    begin = time.monotonic()
    diverged, restarts = self._envs.physics_errors, self._envs.restarts
    episodes = collect(
      self._envs, list(seeds), policy, should_stop=self._cancel.is_set
    )
    if episodes is None:
      return None
    return Round(
      episodes=episodes,
      seconds=time.monotonic() - begin,
      diverged=self._envs.physics_errors - diverged,
      restarts=self._envs.restarts - restarts,
    )
