"""Tell how far a run is and how long it will take."""

import sys
import time
from collections.abc import Callable
from typing import TextIO


class Progress:
  """Prints one line about a run: rewritten on a terminal, seldom in a file.

  Args:
    total_steps: the number of steps of the whole run; None if unknown.
    total_minutes: the run's time budget in minutes; None or 0 for none.
    elapsed_minutes: what earlier processes of the run have used of it.
    every: the least number of seconds between two lines in a file.
    quiet: whether to print nothing.
    unit: what a step is called.
    stream: where to print; standard error if None.
    clock: seconds that never go back.
  """

  def __init__(
    self,
    total_steps: int | None = None,
    total_minutes: float | None = None,
    *,
    elapsed_minutes: float = 0.0,
    every: float = 30.0,
    quiet: bool = False,
    unit: str = "step",
    stream: TextIO | None = None,
    clock: Callable[[], float] = time.monotonic,
  ):
    self._steps = total_steps
    self._seconds = 60 * total_minutes if total_minutes else None
    self._used = 60 * elapsed_minutes
    self._quiet = quiet
    self._unit = unit
    self._stream = sys.stderr if stream is None else stream
    self._rewrite = self._stream.isatty()
    self._every = 0.2 if self._rewrite else every
    self._clock = clock
    self._start = clock()
    self._first_step = None
    self._printed = None
    self._width = 0

  def update(self, step: int, text: str = "") -> None:
    """Prints the state of the run, if it is time to.

    Args:
      step: steps done over the whole run.
      text: a few words more, such as the loss.
    """
    now = self._clock()
    if self._first_step is None:
      # After a resume the speed is that of this process's own steps.
      self._first_step = step
    if self._quiet:
      return
    if self._printed is not None and now - self._printed < self._every:
      return
    self._printed = now
    self._print(self._line(step, now, text))

  def close(self, text: str = "") -> None:
    """Ends the rewritten line, and prints a last text if there is one."""
    if self._quiet:
      return
    if self._rewrite and self._printed is not None:
      self._stream.write("\n")
      self._width = 0
    if text:
      self._stream.write(f"{text}\n")
    self._stream.flush()

  def _line(self, step: int, now: float, text: str) -> str:
    done = step - self._first_step
    elapsed = now - self._start
    of = f"/{self._steps}" if self._steps else ""
    parts = [f"{self._unit} {step}{of}"]
    left = []
    if done > 0 and elapsed > 0:
      speed = done / elapsed
      parts.append(f"{speed:.3g} {self._unit}s/s")
      if self._steps:
        left.append((self._steps - step) / speed)
    if self._seconds:
      left.append(self._seconds - self._used - elapsed)
    if text:
      parts.append(text)
    if left:
      parts.append(f"{clock_time(min(left))} left")
    return "  ".join(parts)

  def _print(self, line: str) -> None:
    if self._rewrite:
      # Blanks wipe the rest of a longer line before.
      self._stream.write("\r" + line.ljust(self._width))
      self._width = len(line)
    else:
      self._stream.write(line + "\n")
    self._stream.flush()


def clock_time(seconds: float) -> str:
  """Writes a duration as `m:ss` or `h:mm:ss`; negative ones as `0:00`."""
  minutes, seconds = divmod(max(0, round(seconds)), 60)
  hours, minutes = divmod(minutes, 60)
  if hours:
    return f"{hours}:{minutes:02}:{seconds:02}"
  return f"{minutes}:{seconds:02}"
