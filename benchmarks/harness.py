"""Time several forms of one loop against each other, fairly.

Each case runs in a process of its own, so that its allocator, its threads and
its peak memory are its own. All processes are started and compiled first; then
they take turns, timed units of work after untimed ones, in an order drawn
anew for each round: what else the machine does falls on all alike. Every
process gets the same allocator settings, the peer's too.
"""

import argparse
import json
import os
import platform
import random
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from jlejepa.runtime.allocator import SETTINGS
from jlejepa.runtime.processor import processor_name, vector_sets

ROOT = Path(__file__).parents[1]
NOTHING = MappingProxyType({})
MATMUL = {
  "float32": "matmul float32",
  "bfloat16": "matmul bfloat16",
}


class Case(NamedTuple):
  """One row: `build` is `"module:function"`, which makes a `worker.Step`.

  `dtype` names the matrix rate that the row is compared with. `peer` marks rows
  of another code base: the ratio is to the fastest of them. `env` is added to
  the process's environment, and `path` to its PYTHONPATH.
  """

  name: str
  build: str
  options: Mapping[str, Any] = NOTHING
  peer: bool = False
  dtype: str = "float32"
  env: Mapping[str, str] = NOTHING
  path: str = ""


def parser(description: str) -> argparse.ArgumentParser:
  """The flags that every script has."""
  made = argparse.ArgumentParser(description=description)
  made.add_argument("--rounds", type=int, default=10)
  made.add_argument(
    "--json", help="append the table to this file of JSON lines"
  )
  made.add_argument("--only", default="", help="a word of the tables to run")
  made.add_argument("--without", help="a word of the rows to leave out")
  made.add_argument(
    "--matmul", action="store_true", help="measure the matrix rates too"
  )
  return made


def missing(name: str) -> None:
  """Says that a peer is absent, and how to have it."""
  print(f"peer absent: {name}. Only our own rows follow.")


def table(
  title: str,
  cases: Sequence[Case],
  flags: argparse.Namespace,
  *,
  target: float | None = None,
) -> list[dict[str, Any]]:
  """`compare` as the flags of `parser` ask; no rows where `only` is another."""
  if flags.without:
    cases = [case for case in cases if flags.without not in case.name]
  if flags.only not in title or not cases:
    return []
  return compare(
    title,
    cases,
    rounds=flags.rounds,
    target=target,
    matmul=flags.matmul,
    out=flags.json,
  )


def compare(
  title: str,
  cases: Sequence[Case],
  *,
  rounds: int,
  target: float | None = None,
  matmul: bool = False,
  out: str | None = None,
) -> list[dict[str, Any]]:
  """Runs the cases in turns, prints a table and appends it to `out` as JSON.

  `target` is the ratio to the best peer that the first case has to reach. With
  `matmul` the rate of a large matrix product, in the same run, stands beside
  the achieved one. A case that fails is reported and left out.
  """
  cases = list(cases)
  if out:  # before the minutes that it takes to have something to write
    Path(out).parent.mkdir(parents=True, exist_ok=True)
    Path(out).touch()
  if matmul:
    dtypes = dict.fromkeys(case.dtype for case in cases)
    for dtype in dtypes:
      options = {"dtype": dtype}
      build = "benchmarks.matmul:product"
      cases.append(Case(MATMUL[dtype], build, options, dtype=dtype))
  processes = [_start(case) for case in cases]
  rows = []
  for case, process in zip(cases, processes):
    row = {"case": case.name, "peer": case.peer, "dtype": case.dtype, "s": []}
    rows.append(row | (_read(process) or {"failed": True}))
  turns = [i for i, row in enumerate(rows) if "failed" not in row]
  for _ in range(rounds):
    random.shuffle(turns)
    for i in turns:
      if "failed" in rows[i]:
        continue
      reply = _ask(processes[i])
      if reply is None:
        rows[i]["failed"] = True
        continue
      rows[i]["s"].append(reply["s"])
      rows[i]["peak"] = reply["peak"]
  for process in processes:
    process.stdin.close()
    process.wait()
  result = _summary(rows)
  print(_table(title, result, target))
  if out:
    record = {"title": title, "target": target, "rows": result}
    with open(out, "a") as file:
      print(json.dumps(record | machine()), file=file)
  return result


def machine() -> dict[str, Any]:
  """Processor and its vector instructions, cores and commit, for the JSON."""
  commit = subprocess.run(
    ["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"],
    capture_output=True,
    text=True,
  ).stdout.strip()
  return {
    "processor": processor_name(),
    "vector_sets": vector_sets(),
    "cores": len(os.sched_getaffinity(0)),
    "python": platform.python_version(),
    "commit": commit,
    "command": sys.argv,
  }


def _start(case: Case) -> subprocess.Popen:
  path = [str(ROOT), *filter(None, [case.path]), os.environ.get("PYTHONPATH")]
  env = os.environ | SETTINGS | dict(case.env)
  env["PYTHONPATH"] = os.pathsep.join(filter(None, path))
  # Several processes share the device.
  env.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
  command = [sys.executable, "-m", "benchmarks.worker", case.build]
  command.append(json.dumps(dict(case.options)))
  process = subprocess.Popen(
    command,
    env=env,
    text=True,
    stdin=subprocess.PIPE,
    stdout=subprocess.PIPE,
  )
  return process


def _read(process: subprocess.Popen) -> dict[str, Any] | None:
  line = process.stdout.readline()
  return json.loads(line) if line else None


def _ask(process: subprocess.Popen) -> dict[str, Any] | None:
  try:
    process.stdin.write("\n")
    process.stdin.flush()
  except BrokenPipeError:
    return None
  return _read(process)


def _summary(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
  for row in rows:
    times = row.pop("s")
    if not times:
      row["failed"] = True
      continue
    row["median_s"] = statistics.median(times)
    row["min_s"], row["max_s"] = min(times), max(times)
    row["rounds"] = len(times)
    row["flop_rate"] = row["flop"] / row["median_s"]
  good = [row for row in rows if "failed" not in row]
  peers = [row for row in good if row["peer"]]
  rates = {
    row["dtype"]: row["flop_rate"]
    for row in good
    if row["case"] in MATMUL.values()
  }
  best = min(peers, key=lambda row: row["median_s"]) if peers else None
  for row in good:
    if best:
      row["time_ratio"] = row["median_s"] / best["median_s"]
      row["memory_ratio"] = row["peak"] / best["peak"]
    if row["flop"] and row["dtype"] in rates:
      row["of_matmul"] = row["flop_rate"] / rates[row["dtype"]]
  return rows


def _table(title: str, rows: list[dict[str, Any]], target: float | None) -> str:
  goal = f" (target: at most {target:.2g} of the best peer)" if target else ""
  lines = [f"\n### {title}{goal}\n"]
  columns = "case, median ms, min, max, first call s, peak MB, GFLOP/s"
  columns += ", of matmul, time ratio, memory ratio, check"
  lines.append("| " + columns.replace(", ", " | ") + " |")
  lines.append("|" + "---|" * (columns.count(",") + 1))
  for row in rows:
    name = f"*{row['case']}*" if row["peer"] else row["case"]
    if "failed" in row:
      lines.append(f"| {name} | failed |" + " |" * columns.count(","))
      continue
    cells = [
      name,
      f"{1e3 * row['median_s']:.4g}",
      f"{1e3 * row['min_s']:.4g}",
      f"{1e3 * row['max_s']:.4g}",
      f"{row['first_s']:.1f}",
      f"{row['peak'] / 1e6:.0f}",
      f"{row['flop_rate'] / 1e9:.0f}" if row["flop"] else "",
      f"{row['of_matmul']:.2f}" if "of_matmul" in row else "",
      f"{row['time_ratio']:.2f}" if "time_ratio" in row else "",
      f"{row['memory_ratio']:.2f}" if "memory_ratio" in row else "",
      "" if row["check"] is None else f"{row['check']:.5g}",
    ]
    lines.append("| " + " | ".join(cells) + " |")
  return "\n".join(lines)
