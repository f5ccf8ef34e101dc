"""Prints the last evaluation of every run kept in this folder, by group.

    python results/summarize.py

Every folder `<group>/<run>/` holds the `scores.json`, `config.json`,
`environment.json` and `metrics.jsonl` of one run.
"""

import json
import pathlib
from collections import defaultdict

import numpy as np

HERE = pathlib.Path(__file__).parent


def main() -> None:
  rows = defaultdict(list)
  for path in sorted(HERE.glob("*/*/scores.json")):
    scores = json.loads(path.read_text())
    rows[path.parts[-3], scores["task"]].append(scores)
  print(
    "| runs | task | renderer | seeds | episodes | minutes |"
    " mean of the last evaluations, each seed | mean |"
  )
  print("|---|---|---|---|---|---|---|---|")
  for (group, task), runs in rows.items():
    last = [run["ys"][-1] for run in runs]
    span = lambda key, runs=runs: " / ".join(
      f"{run[key][-1]:.0f}" for run in runs
    )
    cells = [
      group,
      task,
      runs[0]["renderer"],
      ", ".join(str(run["seed"]) for run in runs),
      span("xs_episodes"),
      span("xs_minutes"),
      " / ".join(f"{value:.0f}" for value in last),
      f"**{np.mean(last):.0f}**",
    ]
    print("| " + " | ".join(cells) + " |")


if __name__ == "__main__":
  main()
