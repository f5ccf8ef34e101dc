"""Several environments that advance together, in processes of their own."""

import contextlib
import multiprocessing
import sys
import time
from collections.abc import Sequence

import numpy as np

from jplanet.envs.actions import check_actions
from jplanet.envs.vector import check_seeds
from jplanet.envs.worker import (
  Maker,
  importable,
  limit_waits,
  no_main,
  work,
)


class WorkerError(RuntimeError):
  """A worker died, hung or raised; the message holds its last traceback."""


class WorkerPool:
  """Steps several environments together, spread over worker processes.

  The interface and the numbers are those of `Lockstep`. Workers are spawned
  and never load jax. Every wait has a time-out. A worker that dies, hangs or
  raises is replaced, with a line on stderr: the episodes that it ran count as
  done and `lost`, on their last images with a reward of 0, and go on at the
  next `reset`. That last step has not happened: play lost episodes again, or
  leave them out.

  Attributes:
    num_envs: number of environments, `N`.
    action_dim: length of an action, `A`.
    image_shape: `(S, S, 3)`.
    renderer: what draws, as every environment names it.
    physics_errors: episodes so far that a diverging simulation cut short.
    restarts: workers replaced so far.
    lost: bool `[N]`, episodes since the last `reset` that a worker took with
      it.
  """

  def __init__(
    self,
    makers: Sequence[Maker],
    *,
    num_workers: int | None = None,
    timeout: float = 60.0,
    start_timeout: float = 180.0,
    max_restarts: int = 3,
  ):
    """Starts the workers.

    Args:
      makers: one for each environment: the keyword arguments of `make_env`, or
        a function of no arguments that a fresh process can import.
      num_workers: processes; None takes one for each environment.
      timeout: longest wait for a step or a reset, in seconds.
      start_timeout: longest wait for a worker to start, in seconds.
      max_restarts: workers that may be replaced before `WorkerError`; counted
        anew after every round of episodes in which none was.

    Raises:
      ValueError: an argument is out of range.
      WorkerError: a worker did not start.
    """
    self.num_envs = len(makers)
    num_workers = num_workers or self.num_envs
    if not 1 <= num_workers <= self.num_envs:
      raise ValueError(
        f"num_workers must lie in [1, {self.num_envs}], the number of "
        f"environments, got {num_workers}"
      )
    self._makers = [importable(maker) for maker in makers]
    # Neighbours share a worker.
    self._parts = np.array_split(np.arange(self.num_envs), num_workers)
    self._timeout = timeout
    self._start_timeout = start_timeout
    self._max_restarts = max_restarts
    self.restarts = self._in_a_row = 0
    self.lost = np.zeros(self.num_envs, bool)
    self._done = None
    self._errors = np.zeros(num_workers, int)
    self._lost_errors = 0
    self._workers = [None] * num_workers
    try:
      for w in range(num_workers):
        self._spawn(w)
      for w in range(num_workers):
        info = self._receive(w, self._deadline(start_timeout))
      self.action_dim, self.image_shape, self.renderer = info
    except BaseException:
      self.close()
      raise
    self._images = np.zeros((self.num_envs, *self.image_shape), np.uint8)

  @property
  def physics_errors(self) -> int:
    """Episodes so far that a diverging simulation cut short."""
    return self._lost_errors + int(self._errors.sum())

  def reset(self, seeds: Sequence[int]) -> np.ndarray:
    """Starts an episode everywhere; see `Lockstep.reset`.

    Raises:
      ValueError: there is another number of seeds.
      WorkerError: more than `max_restarts` workers had to be replaced.
    """
    check_seeds(seeds, self.num_envs)
    if self._done is not None and self._done.all() and not self.lost.any():
      self._in_a_row = 0
    waiting = list(range(len(self._parts)))
    while waiting:
      asked = {
        w: ("reset", [int(seeds[i]) for i in self._parts[w]]) for w in waiting
      }
      answers = self._ask(asked)
      for w, (images, self._errors[w]) in answers.items():
        self._images[self._parts[w]] = images
      # A replaced worker starts the same episodes.
      waiting = [w for w in waiting if w not in answers]
    self._done = np.zeros(self.num_envs, bool)
    self.lost = np.zeros(self.num_envs, bool)
    return self._images.copy()

  def step(
    self, actions: np.ndarray
  ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Takes one decision everywhere; see `Lockstep.step`.

    Raises:
      ValueError: the actions have another shape or are not finite, or no
        episode was started.
      WorkerError: more than `max_restarts` workers had to be replaced.
    """
    actions = check_actions(actions, (self.num_envs, self.action_dim))
    if self._done is None:
      raise ValueError("no episode has been started: call reset first")
    rewards = np.zeros(self.num_envs, np.float32)
    asked = {
      w: ("step", actions[part])
      for w, part in enumerate(self._parts)
      if not self._done[part].all()
    }
    answers = self._ask(asked)
    for w in asked:
      part = self._parts[w]
      if w in answers:
        images, rewards[part], self._done[part], self._errors[w] = answers[w]
        self._images[part] = images
      else:
        self.lost[part] |= ~self._done[part]
        self._done[part] = True
    return self._images.copy(), rewards, self._done.copy()

  def close(self) -> None:
    """Ends all workers."""
    for worker in self._workers:
      if worker is not None:
        with contextlib.suppress(OSError):
          worker[1].send(("close", None))
    for w, worker in enumerate(self._workers):
      if worker is not None:
        worker[0].join(2)
        self._kill(w)

  def _ask(self, messages):
    """Sends to workers; returns the answers of those that gave one."""
    failed = {}
    for w, message in messages.items():
      try:
        self._workers[w][1].send(message)
      except OSError:
        failed[w] = f"worker {w} died"
    deadline = self._deadline(self._timeout)
    answers = {}
    for w in messages:
      try:
        if w not in failed:
          answers[w] = self._receive(w, deadline)
      except WorkerError as error:
        failed[w] = str(error)
    for w, why in failed.items():
      self._replace(w, why)
    return answers

  def _receive(self, w, deadline):
    process, pipe = self._workers[w]
    try:
      if not pipe.poll(max(0.0, deadline - time.monotonic())):
        raise WorkerError(f"worker {w} did not answer in time")
      kind, content = pipe.recv()
    except BlockingIOError:
      raise WorkerError(f"worker {w} stopped in the middle of an answer") from (
        None
      )
    except (EOFError, OSError):
      process.join(1)
      raise WorkerError(
        f"worker {w} died with exit code {process.exitcode}"
      ) from None
    if kind == "raised":
      raise WorkerError(f"worker {w} raised:\n{content}")
    return content

  def _replace(self, w, why):
    while True:
      self._lost_errors += int(self._errors[w])
      self._errors[w] = 0
      self._kill(w)
      if self._in_a_row >= self._max_restarts:
        self.close()
        raise WorkerError(
          f"{why}\nworker {w} failed after max_restarts={self._max_restarts}"
        )
      self.restarts += 1
      self._in_a_row += 1
      print(f"replacing {why.splitlines()[0]}", file=sys.stderr)
      self._spawn(w)
      try:
        self._receive(w, self._deadline(self._start_timeout))
        return
      except WorkerError as error:
        why = str(error)

  def _spawn(self, w):
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    makers = [self._makers[i] for i in self._parts[w]]
    process = context.Process(
      target=work, args=(theirs, makers), name=f"env-{w}", daemon=True
    )
    with no_main():
      process.start()
    theirs.close()
    limit_waits(ours, self._timeout)
    self._workers[w] = (process, ours)

  def _kill(self, w):
    process, pipe = self._workers[w]
    self._workers[w] = None
    process.kill()
    process.join(5)
    pipe.close()

  def _deadline(self, seconds):
    return time.monotonic() + seconds
