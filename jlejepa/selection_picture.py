"""The picture of how well the training loss ranks runs."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from jlejepa.selection import Run, Selection


def selection_figure(
  path: str | os.PathLike, runs: Sequence[Run], selection: Selection
) -> Path:
  """Draws `C(alpha)`, the scaled loss against accuracy, and the two terms.

  Args:
    path: of the image; its suffix gives the format.
    runs: `R` of them.
    selection: of these runs.
  """
  from matplotlib.colors import LogNorm, Normalize
  from matplotlib.figure import Figure

  best = selection.best
  alpha, top = selection.alphas[best], selection.correlation[best]
  lams, accuracies = (
    np.array([getattr(run, name) for run in runs])
    for name in ("lam", "accuracy")
  )
  losses = np.array([run.loss for run in runs])
  figure = Figure(figsize=(13, 3.9), dpi=150, layout="constrained")
  curve, scatter, plane = figure.subplots(1, 3)
  curve.plot(selection.alphas, selection.correlation, color="#0072B2")
  curve.fill_between(
    selection.alphas,
    selection.low,
    selection.high,
    color="#0072B2",
    alpha=0.15,
    linewidth=0,
  )
  curve.plot([alpha], [top], "o", color="#D55E00")
  curve.set_xlabel("alpha")
  curve.set_ylabel("C(alpha)")
  curve.set_title(
    f"Rank correlation over {len(runs)} runs\nbest: C({alpha:g}) = {top:.2f};"
    " band: 95% bootstrap",
    fontsize=10,
    loc="left",
  )
  norm = LogNorm() if lams.min() < lams.max() else Normalize()
  points = scatter.scatter(
    losses / lams**alpha,
    100 * accuracies,
    c=lams,
    norm=norm,
    cmap="viridis",
    edgecolors="black",
    linewidths=0.4,
  )
  scatter.set_xlabel(f"training loss / lambda^{alpha:g}")
  scatter.set_ylabel("accuracy of the probe (%)")
  scatter.set_title("One point a run", fontsize=10, loc="left")
  values = np.unique(lams)
  bar = figure.colorbar(points, ax=scatter, label="lambda")
  if len(values) <= 12:
    bar.set_ticks(values, labels=[f"{value:g}" for value in values])
    bar.minorticks_off()
  points = plane.scatter(
    [run.sigreg for run in runs],
    [run.prediction for run in runs],
    c=100 * accuracies,
    cmap="viridis",
    edgecolors="black",
    linewidths=0.4,
  )
  plane.set_xlabel("SIGReg")
  plane.set_ylabel("prediction loss")
  plane.set_title("The two terms of the loss", fontsize=10, loc="left")
  figure.colorbar(points, ax=plane, label="accuracy (%)")
  for axis, name, values in (
    (scatter, "x", losses / lams**alpha),
    (plane, "x", [run.sigreg for run in runs]),
    (plane, "y", [run.prediction for run in runs]),
  ):
    # A logarithmic axis of less than a decade has hardly a label.
    if 0 < 10 * min(values) < max(values):
      axis.set(**{f"{name}scale": "log"})
  for axis in (curve, scatter, plane):
    axis.grid(alpha=0.2, linewidth=0.6)
    axis.spines[["top", "right"]].set_visible(False)
  path = Path(path).expanduser()
  path.parent.mkdir(parents=True, exist_ok=True)
  figure.savefig(path)
  return path
