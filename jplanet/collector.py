"""Episodes played in a thread of their own, which nobody waits for in vain."""

import math
import queue
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait
from typing import Any, NamedTuple

from jplanet.collect import Policy, collect
from jplanet.envs import Lockstep, WorkerError, WorkerPool
from jplanet.replay import Episode

POLL_SECONDS = 0.1
# Longest wait for one step of all environments, or for making or closing them,
# where they are in this process. A step takes milliseconds; who drives a real
# machine may need minutes.
PATIENCE = 600.0


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

  An environment that hangs cannot be ended where it runs in this process. So
  every wait for it is limited, and the thread is a daemon, which no exit waits
  for. (`WorkerPool` has shorter limits of its own, and plays again.)

  Attributes:
    num_envs: number of environments.

  Args:
    make_envs: makes the environments in lockstep; its errors are raised here.

  Raises:
    WorkerError: making, stepping or closing them takes longer than `PATIENCE`.
  """

  def __init__(self, make_envs: Callable[[], Lockstep | WorkerPool]):
    self._calls = queue.SimpleQueue()
    self._future: Future | None = None
    self._should_stop: Callable[[], bool] = lambda: False
    # Since when the environments owe an answer; None while they owe none.
    self._asked: float | None = None
    self._patience, self._hung = PATIENCE, False
    self._thread = threading.Thread(
      target=self._serve, name="collect", daemon=True
    )
    self._thread.start()
    try:
      self._envs = self._await(self._submit(self._ask, make_envs))
    except BaseException:
      self._calls.put(None)
      raise
    self.num_envs = self._envs.num_envs
    if isinstance(self._envs, WorkerPool):
      self._patience = math.inf

  def __enter__(self) -> "Collector":
    return self

  def __exit__(self, kind: type | None, *exception: object) -> None:
    # Nor for a thread that may hang when a second Ctrl-C asks for the end.
    if self._hung or (kind and issubclass(kind, KeyboardInterrupt)):
      return
    try:
      self.cancel()
    finally:
      if not self._hung:
        closed = self._submit(self._ask, self._envs.close)
        self._calls.put(None)
        self._await(closed)
        self._thread.join()

  @property
  def under_way(self) -> bool:
    """Whether a round was started and not yet fetched."""
    return self._future is not None

  def start(self, seeds: Sequence[int], policy: Policy) -> None:
    """Begins a round; its errors are raised by `finish`."""
    if self.under_way:
      raise RuntimeError("a round is under way: call finish first")
    self._should_stop = lambda: False
    self._future = self._submit(self._play, seeds, policy)

  def finish(self, should_stop: Callable[[], bool]) -> Round | None:
    """Returns the round that was started; None if asked to stop meanwhile.

    Args:
      should_stop: asked by the thread at every decision from now on.
    """
    self._should_stop, future = should_stop, self._future
    self._future = None
    return self._await(future)

  def cancel(self) -> None:
    """Gives up the round under way, if there is one."""
    if self.under_way:
      self.finish(lambda: True)

  def _await(self, future: Future) -> Any:
    while not wait([future], timeout=POLL_SECONDS).done:
      asked = self._asked
      if asked is not None and time.monotonic() - asked > self._patience:
        self._hung = True
        raise WorkerError(
          f"the environments have not answered for {self._patience:g} s, in"
          " this process, where they cannot be ended: with"
          " config.env.workers=1 or more they would be replaced"
        )
    return future.result()

  def _submit(self, function: Callable, *args: Any) -> Future:
    future = Future()
    self._calls.put((future, function, args))
    return future

  def _serve(self) -> None:
    while (call := self._calls.get()) is not None:
      future, function, args = call
      try:
        future.set_result(function(*args))
      except BaseException as error:  # It is raised where it is waited for.
        future.set_exception(error)
      # Else the last round stays in memory until the next one.
      del call, future, function, args

  def _ask(self, function: Callable, *args: Any) -> Any:
    self._asked = time.monotonic()
    try:
      return function(*args)
    finally:
      self._asked = None

  def _play(self, seeds: Sequence[int], policy: Policy) -> Round | None:
    begin = time.monotonic()
    diverged, restarts = self._envs.physics_errors, self._envs.restarts
    episodes = collect(
      _Timed(self._envs, self._ask),
      list(seeds),
      policy,
      should_stop=lambda: self._should_stop(),
    )
    if episodes is None:
      return None
    return Round(
      episodes=episodes,
      seconds=time.monotonic() - begin,
      diverged=self._envs.physics_errors - diverged,
      restarts=self._envs.restarts - restarts,
    )


class _Timed:
  """Environments in lockstep, asked by way of a function."""

  def __init__(self, envs: Lockstep | WorkerPool, ask: Callable):
    self._envs, self._ask = envs, ask

  def __getattr__(self, name: str) -> Any:
    return getattr(self._envs, name)

  def reset(self, seeds):
    return self._ask(self._envs.reset, seeds)

  def step(self, actions):
    return self._ask(self._envs.step, actions)
