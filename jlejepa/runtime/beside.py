"""Do one thing after another in a thread beside the program."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor


class Beside:
  """At most one piece of work under way; what it raises comes out later."""

  def __init__(self) -> None:
    # Its thread starts with the first work; Python waits for it at exit.
    self._thread = ThreadPoolExecutor(1)
    self._work: Future | None = None

  def start(self, work: Callable[[], None]) -> None:
    """Waits for the work before, as `wait` does, then begins."""
    self.wait()
    self._work = self._thread.submit(work)

  def check(self) -> None:
    """Raises what the work raised if it is over; does not wait for it."""
    if self._work is not None and self._work.done():
      work, self._work = self._work, None
      work.result()

  def wait(self) -> None:
    """Returns when nothing is under way, or raises what the work raised."""
    if self._work is not None:
      self._work.exception()
      self.check()

  def close(self, raised: type[BaseException] | None) -> None:
    """Ends the thread after its work, whose error is not to hide `raised`.

    An interrupt is not to wait for a disk that hangs.
    """
    interrupted = raised is not None and issubclass(raised, KeyboardInterrupt)
    self._thread.shutdown(wait=not interrupted)
    if raised is None:
      self.wait()
