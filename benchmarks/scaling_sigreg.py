"""How SIGReg's time grows with N, D and M, beside what its operations predict.

    python -m benchmarks.scaling_sigreg [--rounds=N] [--out=docs/FILE.png]

One of the three grows, the others stay at 1024 samples, 512 wide, 1024 slices.
The dashed line has the operation count of `sigreg.py` at the rate of the
largest point: points above it cost more than their operations.
"""

import argparse
import json
import statistics
import time
from pathlib import Path

from benchmarks import harness, sigreg

BASE = {"n": 1024, "d": 512, "m": 1024}
SWEEPS = {
  "n": (128, 256, 512, 1024, 2048, 4096),
  "d": (64, 128, 256, 512, 1024, 2048),
  "m": (128, 256, 512, 1024, 2048, 4096),
}
NAMES = {"n": "N samples", "d": "D wide", "m": "M slices"}


def measure(sizes: dict[str, int], rounds: int) -> dict[str, float]:
  """Times one shape; returns the sizes, seconds (median, min, max) and flop."""
  step = sigreg.ours(**sizes)
  step.run()
  seconds = []
  for _ in range(rounds):
    start = time.perf_counter()
    step.run()
    seconds.append(time.perf_counter() - start)
  return sizes | {
    "median_s": statistics.median(seconds),
    "min_s": min(seconds),
    "max_s": max(seconds),
    "flop": step.flop,
  }


def plot(points: dict[str, list[dict[str, float]]], path: Path) -> None:
  """Draws a panel for each of N, D and M."""
  import matplotlib

  matplotlib.use("Agg")
  from matplotlib import pyplot as plt

  figure, axes = plt.subplots(1, 3, figsize=(11, 3.4), sharey=True)
  for axis, (name, rows) in zip(axes, points.items()):
    x = [row[name] for row in rows]
    y, low, high = (
      [1e3 * row[key] for row in rows] for key in ("median_s", "min_s", "max_s")
    )
    rate = rows[-1]["flop"] / rows[-1]["median_s"]
    axis.fill_between(x, low, high, alpha=0.2)
    axis.plot(x, y, "o-", label="measured: median, range")
    axis.plot(x, [1e3 * row["flop"] / rate for row in rows], "k--",
              label="operations")  # fmt: skip
    axis.set(xscale="log", yscale="log", xlabel=NAMES[name], xticks=x)
    axis.set_xticks(x, map(str, x), minor=False)
    axis.minorticks_off()
  axes[0].set_ylabel("forward and backward, ms")
  axes[0].legend()
  figure.tight_layout()
  path.parent.mkdir(parents=True, exist_ok=True)
  figure.savefig(path, dpi=120)


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--rounds", type=int, default=10)
  parser.add_argument("--out", default="docs/scaling_sigreg.png")
  flags = parser.parse_args()
  points = {
    name: [measure(BASE | {name: size}, flags.rounds) for size in sizes]
    for name, sizes in SWEEPS.items()
  }
  path = Path(flags.out)
  plot(points, path)
  record = {"title": "SIGReg's scaling", "points": points} | harness.machine()
  path.with_suffix(".json").write_text(json.dumps(record, indent=1) + "\n")
  print(f"wrote {path} and {path.with_suffix('.json')}")


if __name__ == "__main__":
  main()
