"""State diagnostics for a person: a table, and curves of two components."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

MODELS = ("trained", "untrained")
# Okabe and Ito's colours, which the colour-blind can tell apart.
_CURVES = {
  "true": dict(color="#000000", linewidth=1.8),
  "filtered": dict(color="#0072B2", linewidth=1.2),
  "open_loop": dict(color="#D55E00", linewidth=1.2),
}


def describe(result: Mapping[str, Any]) -> str:
  """Returns what the command prints about what `diagnose` returned."""
  lines = []
  for task, table in result["tasks"].items():
    fitted = result["episodes"] // 2
    lines += [
      f"{task}: R^2 on {table['entries']} entries of"
      f" {result['episodes'] - fitted} episodes, heads fitted on {fitted}"
      " others",
      *_table(table),
    ]
  lines += [
    f"true and predicted {name}: {path}"
    for name, path in result["pictures"].items()
  ]
  return "\n".join(lines)


def _table(table: Mapping[str, Any]) -> list[str]:
  components = list(table["trained"])
  columns = list(table["trained"][components[0]])
  width = max(map(len, components)) + 1
  titles = [name.removeprefix("open_loop_").rjust(8) for name in columns]
  block = 8 * len(columns)
  lines = [
    " " * width + "".join(f"   {name:^{block}}" for name in MODELS),
    " " * width + "".join(f"   {''.join(titles)}" for _ in MODELS),
  ]
  values = {
    name: [[table[name][c][column] for column in columns] for c in components]
    for name in MODELS
  }
  for i, component in enumerate(components):
    lines.append(_line(component, width, [values[name][i] for name in MODELS]))
  means = [[_mean(column) for column in zip(*values[name])] for name in MODELS]
  lines.append(_line("mean", width, means))
  return lines


def _line(title: str, width: int, blocks: list[list[float | None]]) -> str:
  cells = ["".join(_cell(value) for value in block) for block in blocks]
  return title.ljust(width) + "".join(f"   {cell}" for cell in cells)


def _cell(value: float | None) -> str:
  if value is None:
    return f"{'-':>8}"
  return f"{'< -9.99' if value < -9.99 else format(value, '.2f'):>8}"


def _mean(values) -> float | None:
  known = [value for value in values if value is not None]
  return float(np.mean(known)) if known else None


def draw(
  path: Path,
  title: str,
  curves: Mapping[str, Mapping[str, np.ndarray]],
  *,
  context: int,
) -> Path:
  """Draws true, filtered and open-loop states of two components (Fig. 11).

  Args:
    path: of the image.
    title: above it.
    curves: by component `true`, `filtered` and `open_loop`, `[T]` each.
    context: images before open loop begins.

  Returns:
    The path.
  """
  from matplotlib.figure import Figure

  figure = Figure(figsize=(8, 5), dpi=150, layout="constrained")
  chosen = _two(curves)
  axes = figure.subplots(len(chosen), 1, sharex=True, squeeze=False)[:, 0]
  for axis, component in zip(axes, chosen):
    for name, style in _CURVES.items():
      axis.plot(curves[component][name], label=name.replace("_", " "), **style)
    axis.axvline(context - 1, color="#707070", linestyle=":", linewidth=1)
    # Open loop may run away; what is true must stay legible.
    true = curves[component]["true"]
    margin = 0.5 * np.ptp(true) + 1e-3
    axis.set_ylim(true.min() - margin, true.max() + margin)
    axis.set_ylabel(f"{component} (std)")
    axis.grid(alpha=0.2, linewidth=0.6)
    axis.spines[["top", "right"]].set_visible(False)
  axes[0].set_title(
    f"{title.replace('_', ' ')}: the simulator's state; open loop has seen"
    f" {context} images",
    loc="left",
    fontsize=10,
  )
  axes[0].legend(fontsize=8, ncols=3, edgecolor="none")
  axes[-1].set_xlabel("Decision")
  figure.savefig(path)
  return path


def _two(curves: Mapping[str, Mapping[str, np.ndarray]]) -> list[str]:
  """Picks two components that move, of different quantities if there are."""
  moving = [c for c in curves if np.ptp(curves[c]["true"]) > 1e-3]
  # A stable sort: the first component of each quantity comes first.
  seen: dict[str, int] = {}
  rank = {}
  for component in moving or list(curves):
    quantity = component.partition("[")[0]
    rank[component] = seen[quantity] = seen.get(quantity, 0) + 1
  return sorted(rank, key=rank.get)[:2]
