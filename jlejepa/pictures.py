"""Pictures of what an encoder has learnt.

Each function takes arrays, draws one image file (its suffix gives the format)
and returns its path.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jlejepa.directions import random_directions
from jlejepa.ecf import epps_pulley, epps_pulley_null

# Okabe and Ito's colours, which the colour-blind can tell apart.
_BLUE, _RED, _GREEN = "#0072B2", "#D55E00", "#009E73"
_GREY = "#505050"


def token_colours(
  path: str | os.PathLike, images: np.ndarray, tokens: np.ndarray
) -> Path:
  """Draws images above the principal components of their tokens.

  Args:
    path: of the file.
    images: `[N, H, W, C]`, uint8 or in [0, 1], with one or three channels.
    tokens: `[N, h, w, D]`, the last map of the encoder.
  """
  columns = min(8, len(images))
  bands = -(-len(images) // columns)
  figure = _figure(1.25 * columns + 0.4, 2.75 * bands + 0.7)
  axes = figure.subplots(2 * bands, columns, squeeze=False)
  for axis in axes.ravel():
    _bare(axis)
  for i, (image, token) in enumerate(zip(images, tokens)):
    band, column = divmod(i, columns)
    _show(axes[2 * band, column], image)
    _show(axes[2 * band + 1, column], principal_colours(token))
  for band in range(bands):
    axes[2 * band, 0].set_ylabel("image", fontsize=9)
    axes[2 * band + 1, 0].set_ylabel("tokens", fontsize=9)
  height, width = tokens.shape[1:3]
  figure.suptitle(
    f"The {height} x {width} tokens of each image: their first three principal"
    "\ncomponents, image by image, as red, green and blue",
    fontsize=10,
  )
  return _save(figure, path)


def principal_colours(tokens: np.ndarray) -> np.ndarray:
  """Turns the tokens of one image into colours.

  The first three principal components of the tokens, each stretched from its
  least to its greatest value. Their signs are those that make the greatest
  weight positive; a component that does not vary is 0.

  Args:
    tokens: `[h, w, D]`.

  Returns:
    `[h, w, 3]` in [0, 1]: red for the first component, green, blue.
  """
  height, width, depth = tokens.shape
  x = np.asarray(tokens, np.float64).reshape(-1, depth)
  x = x - x.mean(axis=0)
  _, values, axes = np.linalg.svd(x, full_matrices=False)
  found = np.zeros((height * width, 3))
  for i in range(min(3, len(values))):
    # Beyond the rank a component is rounding, which stretching would show.
    if values[i] > 1e-6 * max(values[0], np.finfo(np.float64).tiny):
      axis = axes[i] * np.sign(axes[i][np.argmax(np.abs(axes[i]))])
      score = x @ axis
      found[:, i] = (score - score.min()) / np.ptp(score)
  return found.reshape(height, width, 3)


def projection_histograms(
  path: str | os.PathLike,
  embeddings: np.ndarray,
  *,
  seed: int = 0,
  searched: int = 1024,
) -> Path:
  """Draws slices of the embeddings over the normal curve.

  Six random directions, and the least and the most Gaussian of many by the
  Epps-Pulley statistic. The embeddings are shown as they are: SIGReg also
  asks for mean 0 and variance 1.

  Args:
    path: of the file.
    embeddings: `[N, K]`, of the projector.
    seed: of the directions.
    searched: how many directions the two extremes are chosen from.
  """
  directions = random_directions(
    jax.random.key(seed), embeddings.shape[1], max(searched, 6)
  )
  scores = np.asarray(jax.jit(epps_pulley)(embeddings @ directions))
  slices = np.asarray(embeddings @ np.asarray(directions))
  chosen = [(f"random direction {i + 1}", i, _BLUE) for i in range(6)]
  count = len(scores)
  chosen += [
    (f"least Gaussian of {count}", int(np.argmax(scores)), _RED),
    (f"most Gaussian of {count}", int(np.argmin(scores)), _GREEN),
  ]
  figure = _figure(10, 5.2)
  axes = figure.subplots(2, 4, sharex=True, sharey=True)
  edges = np.linspace(-4, 4, 49)
  curve = np.linspace(-4, 4, 200)
  density = np.exp(-(curve**2) / 2) / np.sqrt(2 * np.pi)
  for axis, (title, i, colour) in zip(axes.ravel(), chosen):
    x = slices[:, i]
    # What lies beyond is in the outermost bars.
    axis.hist(np.clip(x, -4, 4), edges, density=True, color=colour, alpha=0.55)
    axis.plot(curve, density, color="black", linewidth=1.2)
    axis.set_title(title, fontsize=9)
    axis.text(
      0.03,
      0.96,
      f"mean {x.mean():z.2f}\nstd {x.std():.2g}\nEP {scores[i]:.3g}",
      transform=axis.transAxes,
      va="top",
      fontsize=8,
      color=_GREY,
    )
    axis.spines[["top", "right"]].set_visible(False)
  # One tall bar of a collapsed slice must not flatten every other panel.
  axes[0, 0].set_ylim(0, 0.8)
  axes[0, 0].set_xlim(-4, 4)
  figure.supylabel("density", fontsize=9)
  figure.supxlabel("projection onto the direction", fontsize=9)
  figure.suptitle(
    f"{len(embeddings)} embeddings of {embeddings.shape[1]} dimensions, one"
    " direction a panel; line: N(0, 1)\nEP, the Epps-Pulley statistic, is"
    f" {epps_pulley_null():.2f} on average for a Gaussian and grows with the"
    " number of embeddings for anything else",
    fontsize=10,
  )
  return _save(figure, path)


def neighbour_rows(
  path: str | os.PathLike,
  queries: np.ndarray,
  found: np.ndarray,
  query_labels: Sequence[Any] | None = None,
  found_labels: Sequence[Sequence[Any]] | None = None,
) -> Path:
  """Draws queries and beside each its nearest images, nearest first.

  Args:
    path: of the file.
    queries: `[N, H, W, C]`, uint8 or in [0, 1].
    found: `[N, k, H, W, C]`.
    query_labels: `[N]`, names or numbers of classes; None for none.
    found_labels: `[N, k]`.
  """
  rows, columns = found.shape[:2]
  figure = _figure(1.1 * (columns + 1) + 0.3, 1.32 * rows + 0.8)
  axes = figure.subplots(rows, columns + 1, squeeze=False)
  for row in range(rows):
    for column in range(columns + 1):
      axis = axes[row, column]
      _bare(axis)
      _show(axis, found[row, column - 1] if column else queries[row])
      if query_labels is None or found_labels is None:
        continue
      wanted = query_labels[row]
      name = found_labels[row][column - 1] if column else wanted
      same = name == wanted
      axis.set_xlabel(
        str(name),
        fontsize=8,
        labelpad=2,
        color=_GREY if same else _RED,
        fontweight="normal" if same else "bold",
      )
  for axis in axes[:, 0]:
    axis.spines[:].set(visible=True, color=_BLUE, linewidth=2.5)
  axes[0, 0].set_title("query", fontsize=9)
  axes[0, 1].set_title("nearest", fontsize=9)
  note = "" if query_labels is None else "\nbold red: another class"
  figure.suptitle(
    f"Images and their {columns} nearest training images, by the cosine"
    f" of centred embeddings{note}",
    fontsize=10,
  )
  return _save(figure, path)


def training_curves(
  path: str | os.PathLike, rows: Sequence[Mapping[str, Any]]
) -> Path:
  """Draws loss terms, probes and effective rank of a run.

  Args:
    path: of the file.
    rows: of the run's `metrics.jsonl`; panels without numbers are left out.

  Raises:
    ValueError: for rows with nothing to draw.
  """
  x = "epoch" if any("epoch" in row for row in rows) else "step"
  panels = [
    ("Prediction loss", {"prediction": ("prediction", _BLUE)}),
    (
      "SIGReg less its mean for a Gaussian",
      {"sigreg_excess": ("SIGReg", _BLUE)},
    ),
    (
      "Accuracy (%)",
      {
        "probe_linear": ("ridge, frozen, test", _BLUE),
        "probe_knn": ("neighbours, frozen, test", _GREEN),
        "probe_accuracy": ("online, augmented training views", _RED),
      },
    ),
    ("Effective rank of projections", {"effective_rank": ("rank", _BLUE)}),
  ]
  drawn = []
  for title, lines in panels:
    curves = [
      (label, colour, _column(rows, x, name))
      for name, (label, colour) in lines.items()
    ]
    curves = [curve for curve in curves if len(curve[2])]
    if curves:
      drawn.append((title, curves))
  if not drawn:
    raise ValueError("no metrics to draw: the run has not logged a row yet")
  columns = min(2, len(drawn))
  figure = _figure(4.6 * columns, 3 * -(-len(drawn) // columns))
  axes = figure.subplots(-(-len(drawn) // columns), columns, squeeze=False)
  for axis in axes.ravel()[len(drawn) :]:
    axis.set_axis_off()
  for axis, (title, curves) in zip(axes.ravel(), drawn):
    for label, colour, points in curves:
      scale = 100 if title.endswith("(%)") else 1
      axis.plot(
        points[:, 0],
        scale * points[:, 1],
        color=colour,
        label=label,
        linewidth=1.5,
        # A run that has logged once is a point, not a line.
        marker="o" if len(points) < 30 else "",
        markersize=3,
      )
    if title.startswith("SIGReg"):
      # From hundreds to less than one, and below 0 by chance.
      axis.set_yscale("symlog", linthresh=1)
      axis.axhline(0, color=_GREY, linewidth=0.8)
    else:
      axis.set_ylim(bottom=0)
    if len(curves) > 1:
      axis.legend(fontsize=7, edgecolor="none", loc="lower right")
    axis.set_title(title, fontsize=10, loc="left")
    axis.set_xlabel(x, fontsize=9)
    axis.grid(alpha=0.2, linewidth=0.6)
    axis.spines[["top", "right"]].set_visible(False)
  return _save(figure, path)


def _column(rows: Sequence[Mapping[str, Any]], x: str, name: str) -> np.ndarray:
  """Gives the finite points `[n, 2]` of one metric."""
  points = [
    (row[x], row[name])
    for row in rows
    if isinstance(row.get(name), int | float) and x in row
  ]
  points = np.asarray(points, float).reshape(-1, 2)
  return points[np.isfinite(points).all(axis=1)]


def _figure(width: float, height: float):
  # Imported late: a run without the `video` extra trains all the same.
  from matplotlib.figure import Figure

  return Figure(figsize=(width, height), dpi=150, layout="constrained")


def _bare(axis) -> None:
  axis.set_xticks([])
  axis.set_yticks([])
  axis.spines[:].set_visible(False)


def _show(axis, image: np.ndarray) -> None:
  image = np.asarray(image)
  grey = image.shape[-1] == 1
  axis.imshow(
    image[..., 0] if grey else image,
    cmap="gray" if grey else None,
    vmin=0,
    vmax=255 if image.dtype == np.uint8 else 1,
    interpolation="nearest",
  )


def _save(figure, path: str | os.PathLike) -> Path:
  path = Path(path).expanduser()
  path.parent.mkdir(parents=True, exist_ok=True)
  figure.savefig(path)
  return path
