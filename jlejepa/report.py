"""The pictures of a run, from its weights and features."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from jlejepa.data import Dataset
from jlejepa.learner import TrainState
from jlejepa.model import network_variables
from jlejepa.probes import neighbours
from jlejepa.runtime.drawing import draw
from jlejepa.runtime.metrics import read_metrics
from jlejepa.runtime.run_folder import RunFolder
from jlejepa.setup import Parts, view_specs
from jlejepa.views import contact_sheet

SHEET = 8
SHOWN = 16
QUERIES = 6
NEIGHBOURS = 8


def write_views(
  folder: RunFolder, config: ConfigDict, parts: Parts, dataset: Dataset
) -> dict[str, str]:
  """Draws a few training images and their views into the `plots/` of a run.

  Args:
    folder: of the run.
    config: the run's.
    parts: built from it, with the views of the configuration.
    dataset: of images.

  Returns:
    `{"views": path}`, or nothing where no picture can be drawn.
  """

  def save(path):
    # Imported late: a run without the extras trains all the same.
    from PIL import Image

    count = len(dataset.images)
    chosen = np.linspace(0, count - 1, min(SHEET, count)).astype(int)
    images = np.asarray(dataset.images[chosen])
    keys = jax.random.split(jax.random.key(config.seed), len(images))
    views = jax.jit(jax.vmap(parts.make_views))(keys, images)
    sheet = contact_sheet(images, views, *view_specs(config))
    Image.fromarray(sheet).save(path)
    return path

  return draw("views", save, folder.plots / "views.png")


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

  def add(name: str, function: Callable, file: str, *args) -> None:
    made.update(draw(name, function, folder.plots / file, *args))

  rows = read_metrics(folder.path)
  if rows:
    add("training", pictures.training_curves, "training.png", rows)
  add(
    "projections",
    pictures.projection_histograms,
    "projections.png",
    train["projection"],
  )
  chosen = np.arange(min(SHOWN, len(images[1])))
  shown = images[1][chosen]
  if shown.ndim != 4 or shown.dtype != np.uint8:
    return made
  add(
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
  add(
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
