"""Train for long, and watch memory, open files and threads.

    python tests/reliability/soak.py --minutes=60 --config=planet.py:cpu \
        --workdir=/tmp/soak --seed=1

Prints a line now and then. Ends with an error if anything but the replay grows
after the first quarter of the run.
"""

import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import NamedTuple

from jlejepa.runtime.config import load_config
from jlejepa.runtime.flags import parse_options
from jplanet.train import fit, settle_process

MEMORY_SLACK = 150e6  # Bytes: what the allocator may keep or return.


class Usage(NamedTuple):
  """What the process holds; memory is without the replay's bytes."""

  minutes: float
  memory: float
  files: int
  threads: int


def usage(start: float, replay_bytes: int) -> Usage:
  pages = int(Path("/proc/self/statm").read_text().split()[1])
  return Usage(
    minutes=(time.monotonic() - start) / 60,
    memory=pages * 4096 - replay_bytes,
    files=len(list(Path("/proc/self/fd").iterdir())),
    threads=len(list(Path("/proc/self/task").iterdir())),
  )


def soak(config, workdir, *, say=print, **kwargs) -> list[Usage]:
  """Trains as `config` says; returns what was held after every row."""
  start, seen = time.monotonic(), []

  def look(row):
    seen.append(usage(start, row["replay_bytes"]))
    if len(seen) % 20 == 1:
      say(f"{row['episodes']} episodes, {seen[-1]}")

  fit(config, workdir, quiet=True, callback=look, **kwargs)
  say(f"Python threads at the end: {threading.active_count()}")
  return seen


def require_no_growth(seen: list[Usage]) -> None:
  """Compares the last quarter of a run with its second one."""
  quarter = len(seen) // 4
  assert quarter >= 2, f"only {len(seen)} rows"
  early, late = seen[quarter : 2 * quarter], seen[-quarter:]
  for field, slack in (("memory", MEMORY_SLACK), ("files", 2), ("threads", 2)):
    before = max(getattr(u, field) for u in early)
    after = min(getattr(u, field) for u in late)
    assert after <= before + slack, f"{field} grew from {before} to {after}"


def main(argv: list[str]) -> None:
  options = parse_options(
    argv,
    options=dict(minutes=60.0, config="planet.py:cpu", workdir="", seed=0),
    prog="soak",
  )
  config = load_config(
    options.config,
    [f"runtime.max_minutes={options.minutes}", f"seed={options.seed}"],
  )
  settle_process(config)
  with tempfile.TemporaryDirectory() as elsewhere:
    workdir = options.workdir or elsewhere
    seen = soak(config, workdir, say=lambda text: print(text, flush=True))
  print(f"first {seen[0]}\nlast {seen[-1]}")
  require_no_growth(seen)
  print("nothing grew but the replay")


if __name__ == "__main__":
  main(sys.argv[1:])
