"""Learning curves from the scores of any number of runs.

python -m jplanet.plots runs/a runs/b --out=curve.png --x=env_steps
"""

import argparse
import math
import os
import pathlib
from collections.abc import Sequence

import numpy as np

from jplanet.scores import PAPER_TABLE_1, read_scores

X_LABELS = {
  "episodes": "Training episodes",
  "env_steps": "Environment steps",
  "minutes": "Training time (minutes)",
}
# Okabe and Ito's colours, which the colour-blind can tell apart.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_PAPER = {
  "PlaNet": ("PlaNet, paper (1k ep.)", "-", "#000000"),
  "D4PG": ("D4PG (100k ep.)", "--", "#707070"),
  "A3C": ("A3C, state (100k ep.)", ":", "#707070"),
  "CEM + true simulator": ("CEM + simulator", "-.", "#707070"),
}
_LEVELS = np.linspace(0, 1, 41)


def learning_curve(
  workdirs: Sequence[str | os.PathLike],
  out_path: str | os.PathLike,
  x: str = "episodes",
) -> pathlib.Path:
  """Draws return against experience, one panel a task.

  A thin line for each run; for each method the mean over its runs, where all
  of them have been, and a band from the 5th to the 95th percentile of their
  episodes (as in the paper's Figure 4); straight lines for the final returns
  of Table 1.

  Args:
    workdirs: run folders (or scores files).
    out_path: of the image; its suffix gives the format (png, pdf, svg).
    x: `episodes`, `env_steps` (action repeats counted) or `minutes`.

  Returns:
    The path of the file written.

  Raises:
    FileNotFoundError: when a folder has no scores.
    ValueError: for no folder, another x or a broken scores file.
  """
  from matplotlib.figure import Figure

  if x not in X_LABELS:
    raise ValueError(f"x must be one of {', '.join(X_LABELS)}, got {x!r}")
  if isinstance(workdirs, (str, os.PathLike)):
    workdirs = [workdirs]
  if not workdirs:
    raise ValueError("no run to plot: name at least one run folder")
  runs = [read_scores(workdir) for workdir in workdirs]
  tasks = _unique(run["task"] for run in runs)
  methods = _unique(run["method"] for run in runs)
  colours = {
    method: _COLOURS[i % len(_COLOURS)] for i, method in enumerate(methods)
  }
  columns = min(3, len(tasks))
  rows = math.ceil(len(tasks) / columns)
  figure = Figure(
    figsize=(5.6 * columns, 3.7 * rows), dpi=150, layout="constrained"
  )
  axes = figure.subplots(rows, columns, squeeze=False).ravel()
  for axis, task in zip(axes, tasks):
    _panel(axis, [run for run in runs if run["task"] == task], colours, x)
  for axis in axes[len(tasks) :]:
    axis.set_axis_off()
  out_path = pathlib.Path(out_path).expanduser()
  out_path.parent.mkdir(parents=True, exist_ok=True)
  figure.savefig(out_path)
  return out_path


def main(arguments: Sequence[str] | None = None):
  """Runs the command line; a bad argument exits with 2 and one line."""
  parser = argparse.ArgumentParser(
    prog="python -m jplanet.plots",
    description="Draws the learning curves of runs.",
  )
  parser.add_argument("runs", nargs="+", metavar="RUN", help="a run folder")
  parser.add_argument("--out", default="learning_curve.png")
  parser.add_argument("--x", default="episodes", choices=list(X_LABELS))
  options = parser.parse_args(arguments)
  try:
    print(learning_curve(options.runs, options.out, options.x))
  except (OSError, ValueError) as error:
    parser.error(str(error))


def _panel(axis, runs: list[dict], colours: dict[str, str], x: str):
  from matplotlib.ticker import EngFormatter

  task = runs[0]["task"]
  for method in _unique(run["method"] for run in runs):
    same = [run for run in runs if run["method"] == method]
    curves = [_curve(run, x) for run in same]
    colour = colours[method]
    for xs, ys, _ in curves:
      axis.plot(xs, ys, color=colour, alpha=0.45, linewidth=0.8)
    grid, mean, low, high = _aggregate(curves)
    seeds = "1 seed" if len(same) == 1 else f"mean of {len(same)} seeds"
    axis.plot(
      grid,
      mean,
      color=colour,
      linewidth=2,
      # A run evaluated once is a point, and a line would not show it.
      marker="o" if len(grid) == 1 else "",
      label=f"{method}, {seeds}",
    )
    axis.fill_between(
      grid,
      low,
      high,
      color=colour,
      alpha=0.15,
      linewidth=0,
    )
  renderers = ", ".join(_unique(run["renderer"] for run in runs))
  axis.set_title(task.replace("_", " "), loc="left", fontsize=11, pad=18)
  axis.text(
    0,
    1.02,
    f"renderer: {renderers}; band: 5th to 95th percentile of episodes",
    transform=axis.transAxes,
    fontsize=8,
    color="#505050",
    va="bottom",
  )
  axis.set_xlabel(X_LABELS[x])
  axis.set_ylabel("Episode return")
  axis.xaxis.set_major_formatter(EngFormatter(sep=""))
  axis.set_xlim(left=0)
  axis.grid(alpha=0.2, linewidth=0.6)
  axis.spines[["top", "right"]].set_visible(False)
  if task in PAPER_TABLE_1:
    axis.set_ylim(0, 1050)
    axis.set_ylabel("Episode return (0 to 1000)")
    _paper_lines(axis, PAPER_TABLE_1[task])
  axis.legend(fontsize=7, edgecolor="none", framealpha=0.8, loc="best")


def _paper_lines(axis, table: dict[str, float]):
  names = sorted(table, key=table.get)
  places = _spread([table[name] for name in names], gap=52.0, top=1040.0)
  for name, place in zip(names, places):
    label, style, colour = _PAPER[name]
    axis.axhline(table[name], color=colour, linestyle=style, linewidth=0.9)
    axis.annotate(
      f"{label}: {table[name]:.0f}",
      xy=(1, table[name]),
      xytext=(1.045, place),
      xycoords=("axes fraction", "data"),
      textcoords=("axes fraction", "data"),
      annotation_clip=False,
      va="center",
      fontsize=7.5,
      color=colour,
      arrowprops=dict(
        arrowstyle="-",
        color=colour,
        linewidth=0.5,
        relpos=(0, 0.5),
        shrinkA=0,
        shrinkB=0,
      ),
    )


def _spread(values: Sequence[float], gap: float, top: float) -> list[float]:
  """Moves sorted label positions apart, by `gap` at least and below `top`."""
  places = list(values)
  for i in range(1, len(places)):
    places[i] = max(places[i], places[i - 1] + gap)
  limit = top
  for i in reversed(range(len(places))):
    places[i] = min(places[i], limit)
    limit = places[i] - gap
  return places


def _curve(run: dict, x: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Gives x, mean returns and quantiles `[evaluations, levels]`, by x."""
  xs = np.asarray(run[f"xs_{x}"], float)
  # np.interp gives nonsense, silently, for an x that does not increase.
  order = np.argsort(xs, kind="stable")
  quantiles = np.stack([np.quantile(r, _LEVELS) for r in run["returns"]])
  return xs[order], np.asarray(run["ys"], float)[order], quantiles[order]


def _aggregate(curves) -> tuple[np.ndarray, ...]:
  """Gives x, mean over runs, 5th and 95th percentile over runs and episodes.

  On the x that all runs have passed, so that the mean never jumps because a
  run ends. Runs evaluate at different x: means and quantile functions are
  interpolated, and the runs' quantile functions pooled.
  """
  start = max(xs[0] for xs, _, _ in curves)
  end = min(xs[-1] for xs, _, _ in curves)
  grid = np.unique(np.concatenate([xs for xs, _, _ in curves]))
  grid = grid[(grid >= start) & (grid <= end)]
  mean = np.mean([np.interp(grid, xs, ys) for xs, ys, _ in curves], axis=0)
  pooled = np.stack(
    [np.interp(grid, xs, q) for xs, _, qs in curves for q in qs.T]
  )
  low, high = np.percentile(pooled, [5, 95], axis=0)
  return grid, mean, low, high


def _unique(names) -> list[str]:
  return list(dict.fromkeys(names))


if __name__ == "__main__":
  main()
