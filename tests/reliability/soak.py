"""Train for long, and watch memory, open files and threads.

    python tests/reliability/soak.py --minutes=60 --config=planet.py:cpu \
        --workdir=/tmp/soak --seed=1 --out=soak.json

Prints a line now and then, and writes all samples to a JSON file. Ends with an
error if anything but the replay grows after the first quarter of the run.
"""

import itertools
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import NamedTuple

from jlejepa.runtime.config import load_config
from jlejepa.runtime.files import atomic_write_json
from jlejepa.runtime.flags import parse_options
from jplanet.train import fit, settle_process

# By how much the median of the last quarter of a run may exceed that of its
# second one: a run compiles and fills its heap in the first. Single samples
# differ by a gigabyte, since they find an update under way or none, and a save
# under way beside the updates has files open.
SLACK = {"memory": 100e6, "files": 3, "threads": 1}


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


def quarters(seen: list[Usage]) -> dict[str, list[float]]:
  """Returns the medians of each quarter of the samples, by what was held."""
  assert len(seen) >= 8, f"only {len(seen)} rows"
  cuts = [i * len(seen) // 4 for i in range(5)]
  return {
    field: [
      statistics.median(getattr(u, field) for u in seen[first:last])
      for first, last in itertools.pairwise(cuts)
    ]
    for field in SLACK
  }


def require_no_growth(seen: list[Usage]) -> None:
  """Compares the last quarter of a run with its second one.

  Raises:
    AssertionError: naming what grew.
  """
  for field, (_, before, _, after) in quarters(seen).items():
    assert after <= before + SLACK[field], (
      f"{field} grew from {before:g} to {after:g}"
    )


def main(argv: list[str]) -> None:
  options = parse_options(
    argv,
    options=dict(
      minutes=60.0, config="planet.py:cpu", workdir="", seed=0, out="soak.json"
    ),
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
  samples = [usage._asdict() for usage in seen]
  atomic_write_json(Path(options.out), {"samples": samples})
  print(f"first {seen[0]}\nlast {seen[-1]}")
  for field, medians in quarters(seen).items():
    print(f"{field}, medians of quarters: {[f'{m:g}' for m in medians]}")
  require_no_growth(seen)
  print("nothing grew but the replay")


if __name__ == "__main__":
  main(sys.argv[1:])
