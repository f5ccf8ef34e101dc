"""End a run in good order: on a signal, or when its time is up."""

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator

from jlejepa.runtime.processes import largest

# EX_TEMPFAIL: schedulers and shell loops read it as "run the command again".
EXIT_STOPPED = 75
EXIT_FINISHED = 0
EXIT_INTERRUPTED = 130  # What shells call an end by SIGINT.

_BUDGET, _SIGNALS = "time budget", ("SIGTERM", "SIGINT")
# Ascending: a signal counts for more than the budget.
_REASONS = ("", _BUDGET, *_SIGNALS)


class StopSignal:
  """Tells loops when to stop; poll `requested` in every one of them.

  Within the `with` block SIGTERM and SIGINT only set a flag, so that the run
  can save and leave; a second SIGINT raises `KeyboardInterrupt`. Outside the
  main thread, where Python allows no handlers, only the time budget works.
  Enter it before anything that takes long, and tell it with `resume` what a
  checkpoint knows of the time.

  Where a run has several processes, `requested`, `reason` and `exit_code` are
  questions to all of them: each process must ask at the same places, and when
  one is to stop, all get the same answer at the same step.

  Args:
    max_minutes: the wall-clock budget in minutes; 0 for none.
  """

  def __init__(self, max_minutes: float = 0.0):
    self._budget = max_minutes
    # Not `time.time`: a clock that is set must not end or prolong a run.
    self._start = time.monotonic()
    self._signal = ""
    self._agreed = ""
    self._old = {}

  def __enter__(self) -> "StopSignal":
    if threading.current_thread() is threading.main_thread():
      for number in (signal.SIGTERM, signal.SIGINT):
        self._old[number] = signal.signal(number, self._handle)
    return self

  def __exit__(self, *exception: object) -> None:
    for number, handler in self._old.items():
      # None stands for a handler that was not installed from Python.
      signal.signal(number, signal.SIG_DFL if handler is None else handler)
    self._old = {}

  def resume(self, minutes: float) -> None:
    """Adds the minutes that earlier processes of the same run have taken."""
    self._start -= 60 * minutes

  @property
  def minutes(self) -> float:
    """The minutes the run has taken, earlier processes included."""
    return (time.monotonic() - self._start) / 60

  @property
  def requested(self) -> bool:
    """Whether to stop now."""
    return bool(self.reason)

  @property
  def reason(self) -> str:
    """Why to stop: `SIGTERM`, `SIGINT`, `time budget`, or nothing."""
    # What was agreed stays, so that all processes ask equally often.
    if self._agreed not in _SIGNALS:
      reason = self._signal
      if not reason and 0 < self._budget <= self.minutes:
        reason = _BUDGET
      self._agreed = _REASONS[largest(_REASONS.index(reason))]
    return self._agreed

  @property
  def exit_code(self) -> int:
    """75 after a signal (the same command goes on), else 0.

    A run that has used up its time budget is a finished run.
    """
    return EXIT_STOPPED if self.reason in _SIGNALS else EXIT_FINISHED

  def _handle(self, number: int, frame: object) -> None:
    if self._signal and number == signal.SIGINT:
      raise KeyboardInterrupt
    self._signal = signal.Signals(number).name
    # `print` is not safe in a handler: it may interrupt another print.
    text = f"\n{self._signal}: saving, then stopping; Ctrl-C to quit at once\n"
    with contextlib.suppress(OSError):
      os.write(2, text.encode())


@contextlib.contextmanager
def quit_on_interrupt() -> Iterator[None]:
  """Ends the process at a `KeyboardInterrupt`, at once, with exit code 130.

  For commands, around everything: else Python would wait for threads and
  compilers before it ends, and the user has asked twice. What was printed is
  flushed. A library call lets the exception pass instead.
  """
  try:
    yield
  except KeyboardInterrupt:
    for stream in (sys.stdout, sys.stderr):
      with contextlib.suppress(OSError, ValueError):
        stream.flush()
    os._exit(EXIT_INTERRUPTED)
