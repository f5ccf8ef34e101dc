"""The pictures of a run, from its weights and features."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from jlejepa import summary
from jlejepa.learner import TrainState
from jlejepa.model import network_variables
from jlejepa.probes import neighbours
from jlejepa.runtime.metrics import read_metrics
from jlejepa.runtime.run_folder import RunFolder
from jlejepa.setup import Parts

SHOWN = 16
QUERIES = 6
NEIGHBOURS = 8


def write_pictures(
  folder: RunFolder,
  parts: Parts,
  state: TrainState,
  features: Sequence[Mapping[str, np.ndarray]],
  images: Sequence[Any],
  labels: Sequence[np.ndarray] | None,
  names: Sequence[str] | None,
) -> dict[str, str]:
  """Draws what can be drawn into the `plots/` of a run.

  A picture that cannot be drawn, because a library is missing, is named on
  stderr and left out. Tokens and neighbours are drawn of uint8 images alone.

  Args:
    folder: of the run.
    parts: built from its configuration.
    state: the weights.
    features: by name, of the training and the test images.
    images: the training and the test images, or what selects from them.
    labels: of both; None for none.
    names: of the classes; None for their numbers.

  Returns:
    Paths by what they show.
  """
  # Imported late, as matplotlib is.
  from jlejepa import pictures

  train, test = features
  made = {}

  def draw(name: str, function: Callable, file: str, *args) -> None:
    made.update(summary.draw(name, function, folder.plots / file, *args))

  rows = read_metrics(folder.path)
  if rows:
    draw("training", pictures.training_curves, "training.png", rows)
  draw(
    "projections",
    pictures.projection_histograms,
    "projections.png",
    train["projection"],
  )
  chosen = np.arange(min(SHOWN, len(images[1])))
  shown = images[1][chosen]
  if shown.ndim != 4 or shown.dtype != np.uint8:
    return made
  draw(
    "tokens",
    pictures.token_colours,
    "tokens.png",
    shown,
    _tokens(parts, state, shown),
  )
  chosen = chosen[:QUERIES]
  found, _ = neighbours(
    test["embedding"][chosen],
    train["embedding"],
    min(NEIGHBOURS, len(train["embedding"])),
  )
  classes = ()
  if labels is not None:
    name = lambda label: names[label] if names else int(label)
    classes = (
      [name(label) for label in labels[1][chosen]],
      [[name(label) for label in row] for row in labels[0][found]],
    )
  draw(
    "neighbours",
    pictures.neighbour_rows,
    "neighbours.png",
    shown[: len(chosen)],
    images[0][found],
    *classes,
  )
  return made


def _tokens(parts: Parts, state: TrainState, images: np.ndarray) -> np.ndarray:
  """Gives the tokens `[N, h, w, D]` of a few images."""

  def apply(params, batch_stats, images):
    variables = network_variables(params, batch_stats, "encoder")
    x = jax.vmap(parts.clean_view)(images)
    return parts.model.encoder.apply(variables, x)[0].tokens

  return np.asarray(jax.jit(apply)(state.params, state.batch_stats, images))
