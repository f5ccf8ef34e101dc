"""Kill a run at random moments, resume it, compare with one left alone.

    python tests/reliability/kill.py planet --kills=20 --seed=0

Prints every kill, and ends with exit code 1 at the first difference. Runs are
seconds long; what they learn does not matter here.
"""

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import orbax.checkpoint as ocp

from jlejepa.runtime.flags import parse_options
from jlejepa.runtime.metrics import read_metrics

ROOT = Path(__file__).parents[2]
PATIENCE = 1200  # Seconds that a run of seconds may take on a busy machine.
TIMES = ("seconds", "minutes")


class Case(NamedTuple):
  """A command to be killed: a module, its config, and what to override."""

  module: str
  config: str
  overrides: tuple[str, ...]

  def command(self, workdir: Path) -> list[str]:
    return [
      sys.executable, "-m", self.module, f"--config={self.config}",
      f"--workdir={workdir}", *(f"--config.{text}" for text in self.overrides),
    ]  # fmt: skip


_PLANET = (
  "env.action_repeat=100", "env.renderer=ray", "env.size=8",
  "env.supersample=1", "model.depth=4", "planner.horizon=3", "train.batch=2",
  "train.chunk=6", "train.seed_episodes=4", "train.max_episodes=16",
  "train.updates_per_collect=10", "evaluate.every=2",
  "runtime.checkpoint_every=1", "runtime.tensorboard=false",
)  # fmt: skip
CASES = {
  "planet": Case(
    "jplanet.train", "planet.py:debug", (*_PLANET, "env.num_envs=1")
  ),
  "planet_serial": Case(
    "jplanet.train",
    "planet.py:debug",
    (*_PLANET, "env.num_envs=1", "train.overlap=false"),
  ),
  "planet_envs": Case(
    "jplanet.train", "planet.py:debug", (*_PLANET, "env.num_envs=4")
  ),
  "planet_workers": Case(
    "jplanet.train",
    "planet.py:debug",
    (*_PLANET, "env.num_envs=4", "env.workers=2"),
  ),
  "planet_workers_serial": Case(
    "jplanet.train",
    "planet.py:debug",
    (*_PLANET, "env.num_envs=4", "env.workers=2", "train.overlap=false"),
  ),
  "lejepa": Case(
    "jlejepa.train",
    "lejepa.py:debug",
    ("train.epochs=2", "runtime.checkpoint_every=3"),
  ),
}


class Killer:
  """Runs a case in folders of its own, and kills it.

  Args:
    case: what to run.
    folder: where; the reference run is made in `folder/whole` at once.
    seed: of the moments.
  """

  def __init__(self, case: Case, folder: Path, seed: int = 0):
    self.case, self.folder = case, folder
    self.random = random.Random(seed)
    self.kills, self.runs = [], 0
    folder.mkdir(parents=True, exist_ok=True)
    # Every life would else compile the same programs anew. What runs several
    # cases may name one folder for all of them.
    cache = os.environ.get("JAX_COMPILATION_CACHE_DIR", folder / "compiled")
    self.environment = {
      **os.environ,
      "JAX_PLATFORMS": "cpu",
      "JAX_COMPILATION_CACHE_DIR": str(cache),
      "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.1",
      "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }
    # Twice: the second one compiles nothing, as the ones to be killed.
    self.live(folder / "first")
    self.seconds = self.live(folder / "whole")
    compare(folder / "first", folder / "whole")

  def run(self, kills: int) -> None:
    """Kills `kills` times; compares every run that comes to its end.

    Raises:
      AssertionError: a run differs, or leaves processes behind.
    """
    while len(self.kills) < kills:
      workdir = self.folder / f"killed{self.runs}"
      self.runs += 1
      while len(self.kills) < kills:
        delay = self.random.uniform(0, self.seconds)
        fresh = not workdir.exists()
        if (seconds := self.live(workdir, delay)) is not None:
          if fresh:  # A machine may have become less busy.
            self.seconds = seconds
          break
        self.kills.append(delay)
        print(f"killed after {delay:.2f} s: {progress(workdir)}", flush=True)
      else:
        self.live(workdir)
      compare(self.folder / "whole", workdir)
      print(f"{workdir.name} equals the whole run", flush=True)

  def live(self, workdir: Path, delay: float | None = None) -> float | None:
    """Runs the command; returns its seconds, None where it was killed.

    They count from when the run takes its folder, before which there is
    nothing to lose.
    """
    log = workdir.with_name(f"{workdir.name}.log")
    with open(log, "a") as file:
      process = subprocess.Popen(
        self.case.command(workdir),
        cwd=ROOT,
        env=self.environment,
        stdout=file,
        stderr=file,
      )
      start = time.monotonic()
      try:
        while holder(workdir) != process.pid and process.poll() is None:
          assert time.monotonic() - start < PATIENCE, log.read_text()
          time.sleep(0.005)
        start = time.monotonic()
        try:
          process.wait(PATIENCE if delay is None else delay)
        except subprocess.TimeoutExpired:
          assert delay is not None, f"hangs: {log.read_text()}"
          children = children_of(process.pid)
          os.kill(process.pid, signal.SIGKILL)
          process.wait()
          await_end(children)
          return None
      finally:
        process.kill()
        process.wait()
    assert process.returncode == 0, log.read_text()
    return time.monotonic() - start


def holder(workdir: Path) -> int | None:
  """Returns the process that holds a run folder, or held it last."""
  try:
    return json.loads((workdir / ".lock").read_text())["pid"]
  except (OSError, ValueError):
    return None


def progress(workdir: Path) -> str:
  rows = read_metrics(workdir)
  return f"{len(rows)} rows, checkpoints {checkpoints(workdir)}"


def checkpoints(workdir: Path) -> list[str]:
  folder = workdir / "checkpoints"
  return sorted(os.listdir(folder)) if folder.is_dir() else []


def children_of(pid: int) -> list[int]:
  path = Path(f"/proc/{pid}/task/{pid}/children")
  try:
    return [int(child) for child in path.read_text().split()]
  except OSError:
    return []


def await_end(pids: list[int], seconds: float = PATIENCE) -> None:
  """Waits until processes have ended by themselves."""
  deadline = time.monotonic() + seconds
  while running := [pid for pid in pids if Path(f"/proc/{pid}").exists()]:
    assert time.monotonic() < deadline, f"orphans: {running}"
    time.sleep(0.05)


def compare(one: Path, two: Path) -> None:
  """Requires that two finished runs are equal, but for their times."""
  rows = [
    [without_times(row) for row in read_metrics(workdir)]
    for workdir in (one, two)
  ]
  assert len(rows[0]) == len(rows[1]) > 0, [len(r) for r in rows]
  for a, b in zip(*rows):
    assert json.dumps(a) == json.dumps(b), f"metrics.jsonl: {a} != {b}"
  assert newest(one) == newest(two)
  folders = [workdir / "checkpoints" / newest(one) for workdir in (one, two)]
  states = [
    ocp.Checkpointer(ocp.StandardCheckpointHandler()).restore(folder / "state")
    for folder in folders
  ]
  assert states[0].keys() == states[1].keys()
  for name, value in states[0].items():
    same_bits(name, value, states[1][name])
  extras = [without_times(read_json(f / "extra.json")) for f in folders]
  assert extras[0] == extras[1], f"extra.json: {extras}"
  for path in one.glob("scores*.json"):
    scores = [without_times(read_json(w / path.name)) for w in (one, two)]
    assert scores[0] == scores[1], f"{path.name}: {scores}"
  names = [sorted(p.name for p in w.glob("episodes/*.npz")) for w in (one, two)]
  assert names[0] == names[1], names
  for name in names[0]:
    with (
      np.load(one / "episodes" / name) as a,
      np.load(two / "episodes" / name) as b,
    ):
      for field in a.files:
        same_bits(f"{name} {field}", a[field], b[field])


def same_bits(name: str, one, two) -> None:
  one, two = np.asarray(one), np.asarray(two)
  same = one.dtype == two.dtype and one.shape == two.shape
  assert same and one.tobytes() == two.tobytes(), f"{name} differs"


def newest(workdir: Path) -> str:
  return str(max(int(s) for s in checkpoints(workdir) if s.isdigit()))


def read_json(path: Path):
  return json.loads(path.read_text())


def without_times(value):
  """Returns nested dicts without entries that tell a time."""
  if isinstance(value, dict):
    return {
      key: without_times(item)
      for key, item in value.items()
      if not any(word in key for word in TIMES)
    }
  if isinstance(value, list):
    return [without_times(item) for item in value]
  return value


def main(argv: list[str]) -> None:
  case, *argv = argv
  options = parse_options(argv, options=dict(kills=20, seed=0), prog="kill")
  start = time.monotonic()
  with tempfile.TemporaryDirectory() as folder:
    killer = Killer(CASES[case], Path(folder), options.seed)
    print(f"{case}: {killer.seconds:.1f} s when left alone", flush=True)
    killer.run(options.kills)
  print(
    f"{case}: {len(killer.kills)} kills in {killer.runs} runs, all equal "
    f"({time.monotonic() - start:.0f} s)"
  )


if __name__ == "__main__":
  main(sys.argv[1:])
