"""One case of a benchmark in a process of its own; `harness.py` starts it.

    python -m benchmarks.worker MODULE:FUNCTION '{"option": 1}'

`FUNCTION(**options)` returns a `Step`. The process prints a line of JSON when
it is ready and one for each line that it reads, until its input ends.
"""

import importlib
import json
import resource
import sys
import time
from collections.abc import Callable
from typing import NamedTuple

WARM_S = 0.5
TIMED_S = 0.25


class Step(NamedTuple):
  """What a case measures.

  Attributes:
    run: Does one unit of work and returns when it is done (on the device too).
    flop: Floating-point operations of the unit that no form can avoid; 0 where
      it is not counted.
    check: A number that all cases of a table should agree on (a loss, say), to
      see that they do the same work; None where there is none.
    memory: Returns the peak of device memory in bytes; None for the CPU, where
      the process's own peak is taken.
  """

  run: Callable[[], object]
  flop: float = 0.0
  check: float | None = None
  memory: Callable[[], int] | None = None


def main() -> None:
  # Whatever a library prints must not be taken for an answer.
  answers, sys.stdout = sys.stdout, sys.stderr

  def answer(**fields):
    print(json.dumps(fields), file=answers, flush=True)

  module, _, function = sys.argv[1].partition(":")
  start = time.perf_counter()
  step = getattr(importlib.import_module(module), function)(
    **json.loads(sys.argv[2])
  )
  built = time.perf_counter()
  step.run()  # compiles
  answer(
    build_s=built - start,
    first_s=time.perf_counter() - built,
    flop=step.flop,
    check=step.check,
  )
  for _ in sys.stdin:
    # Not timed: in a loop the steps follow each other, with warm caches and
    # with memory that need not come back from the machine first. One unit is
    # not enough: the next one may take other memory.
    warm = time.perf_counter() + WARM_S
    step.run()
    step.run()
    while time.perf_counter() < warm:
      step.run()
    units, seconds, start = 0, 0.0, time.perf_counter()
    while seconds < TIMED_S:
      step.run()
      units += 1
      seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    answer(s=seconds / units, peak=step.memory() if step.memory else peak)


if __name__ == "__main__":
  main()
