"""End a run in good order: on a signal, or when its time is up."""

import contextlib
import os
import signal
import threading
import time

# EX_TEMPFAIL: schedulers and shell loops read it as "run the command again".
EXIT_STOPPED = 75
EXIT_FINISHED = 0


class StopSignal:
  """Tells loops when to stop; poll `requested` in every one of them.

  Within the `with` block SIGTERM and SIGINT only set a flag, so that the run
  can save and leave; a second SIGINT raises `KeyboardInterrupt`. Outside the
  main thread, where Python allows no handlers, only the time budget works.

  Args:
    max_minutes: the wall-clock budget in minutes; 0 for none.
    elapsed_minutes: what earlier processes of the same run have used of it.
  """

  def __init__(self, max_minutes: float = 0.0, elapsed_minutes: float = 0.0):
    self._budget = max_minutes
    # Not `time.time`: a clock that is set must not end or prolong a run.
    self._start = time.monotonic() - 60 * elapsed_minutes
    self._signal = ""
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
    if self._signal:
      return self._signal
    return "time budget" if 0 < self._budget <= self.minutes else ""

  @property
  def exit_code(self) -> int:
    """75 after a signal (the same command goes on), else 0.

    A run that has used up its time budget is a finished run.
    """
    return EXIT_STOPPED if self._signal else EXIT_FINISHED

  def _handle(self, number: int, frame: object) -> None:
    if self._signal and number == signal.SIGINT:
      raise KeyboardInterrupt
    self._signal = signal.Signals(number).name
    # `print` is not safe in a handler: it may interrupt another print.
    text = f"\n{self._signal}: saving, then stopping; Ctrl-C to quit at once\n"
    with contextlib.suppress(OSError):
      os.write(2, text.encode())
