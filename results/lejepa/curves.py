"""Draws the linear probe of the CIFAR-10 runs along their training.

    python results/lejepa/curves.py

Reads `cifar10_cpu/*/metrics.jsonl` and writes `cifar10_cpu.png`. Runs of the
default are black; others bear the name of their folder.
"""

import json
import pathlib

import matplotlib.pyplot as plt

from jlejepa.runtime.metrics import read_metrics

HERE = pathlib.Path(__file__).parent
RUNS = HERE / "cifar10_cpu"


def main() -> None:
  figure, axis = plt.subplots(figsize=(6, 3.8))
  for path in sorted(RUNS.glob("*/metrics.jsonl")):
    name = path.parent.name
    rows = [row for row in read_metrics(path.parent) if "probe_linear" in row]
    if not rows:  # Trained on the labels, without probes on the way.
      continue
    default = name.startswith("seed")
    axis.plot(
      [row["epoch"] for row in rows],
      [100 * row["probe_linear"] for row in rows],
      color="black" if default else None,
      label="default" if name == "seed0" else None if default else name,
      linewidth=2 if default else 1,
      marker=".",
    )
  table = json.loads((RUNS / "seed0" / "scores.json").read_text())["rows"]
  for name, style in (("untrained", ":"), ("raw pixels", "--")):
    value = 100 * table[name]["linear"]
    axis.axhline(value, color="grey", linestyle=style, label=name)
  axis.set(xlabel="epoch", ylabel="linear probe, % of 2,000 test images")
  axis.legend(fontsize=7, loc="center right")
  figure.tight_layout()
  figure.savefig(HERE / "cifar10_cpu.png", dpi=110)


if __name__ == "__main__":
  main()
