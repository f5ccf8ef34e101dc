"""Do one thing after another in a thread beside the program."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor


class Beside:
  """At most one piece of work under way; what it raises comes with `wait`.

  As a context manager it waits at the end, and raises what the work raised
  unless the block itself raised something.
  """

  def __init__(self) -> None:
    # Its thread starts with the first work; Python waits for it at exit.
    self._thread = ThreadPoolExecutor(1)
    self._work: Future | None = None

  def __enter__(self) -> "Beside":
    return self

  def __exit__(self, kind, *_) -> None:
    self._thread.shutdown(wait=True)
    if kind is None:
      self.wait()

  def start(self, work: Callable[[], None]) -> None:
    """Waits for the work before, then begins."""
    self.wait()
    self._work = self._thread.submit(work)

  def wait(self) -> None:
    """Returns when nothing is under way, or raises what the work raised."""
    work, self._work = self._work, None
    if work is not None:
      work.result()
