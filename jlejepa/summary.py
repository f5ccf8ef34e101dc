"""What a run of LeJEPA shows a person: probes and a few words."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from jlejepa.data import Dataset
from jlejepa.probes import (
  check_classes,
  format_table,
  probe_table,
  raw_pixels,
)
from jlejepa.runtime.errors import UserError, require

Labelled = tuple[dict[str, np.ndarray], np.ndarray]


class Selected(NamedTuple):
  """Some of the images of a data set, without reading any yet."""

  images: Any
  index: np.ndarray

  def __len__(self) -> int:
    return len(self.index)

  def __getitem__(self, chosen: Any) -> np.ndarray:
    return np.asarray(self.images[self.index[chosen]])


def some_labelled(data: Dataset, limit: int) -> tuple[Selected, np.ndarray]:
  """Returns at most `limit` labelled examples, evenly spread, and labels."""
  known = np.flatnonzero(data.labels >= 0)
  if len(known) > limit:
    known = known[np.linspace(0, len(known) - 1, limit).astype(int)]
  return Selected(data.images, known), data.labels[known]


def probed_examples(
  dataset: Dataset, test: Dataset | None, limits: Sequence[int]
) -> list[tuple[Selected, np.ndarray]]:
  """Returns the examples that teach the probes, and those that they are asked.

  Args:
    dataset: the training examples.
    test: the test examples; None for none.
    limits: at most so many of each.

  Returns:
    Both as `some_labelled` gives them; nothing if either has no labels.

  Raises:
    UserError: for examples of unequal shapes, or classes that no probe can be
      fitted to.
  """
  if test is None or dataset.labels is None or test.labels is None:
    return []
  shapes = [list(data.images.shape[1:]) for data in (dataset, test)]
  require(
    shapes[0] == shapes[1],
    f"{test.name}: training examples have shape {shapes[0]}, test examples"
    f" {shapes[1]}: bring them to one",
  )
  found = [
    some_labelled(data, limit) for data, limit in zip((dataset, test), limits)
  ]
  try:
    check_classes(found[0][1], found[1][1])
  except ValueError as error:
    raise UserError(
      f"{dataset.name} cannot be probed by {len(found[0][1])} labelled examples"
      f" (at most config.evaluate.train_images): {error}"
    ) from error
  return found


def feature_sets(
  trained: Sequence[Labelled],
  untrained: Sequence[Labelled],
  images: Sequence[Any],
  *,
  last_two: bool = False,
) -> dict[str, tuple[np.ndarray, ...]]:
  """Returns what probes compare: features of a run beside its baselines.

  Args:
    trained: features by name and labels, of training and test images.
    untrained: the same of the first weights.
    images: the training and the test images, or what selects from them.
    last_two: whether the last two layers, joined, are sets of their own.

  Returns:
    Training and test features by the name of the row.
  """
  both = lambda pairs, name: tuple(found[name] for found, _ in pairs)
  sets = {"embedding": both(trained, "embedding")}
  if last_two:
    sets["last two layers"] = both(trained, "last_two")
  sets["projection"] = both(trained, "projection")
  sets["untrained"] = both(untrained, "embedding")
  if last_two:
    sets["untrained, last two"] = both(untrained, "last_two")
  sets["raw pixels"] = tuple(map(raw_pixels, images))
  return sets


def final_probes(
  trained: Sequence[Labelled],
  untrained: Sequence[Labelled],
  images: Sequence[Any],
) -> dict[str, Any]:
  """Runs the quick probes of a finished run beside its baselines.

  Args:
    trained: as in `feature_sets`, and so are the rest.
    untrained: as in `feature_sets`.
    images: as in `feature_sets`.

  Returns:
    The result of `jlejepa.probes.probe_table`.
  """
  labels = tuple(labels for _, labels in trained)
  return probe_table(feature_sets(trained, untrained, images), labels)


def describe_row(row: Mapping[str, float]) -> str:
  """Returns the few words of a progress line."""
  words = [
    f"epoch {row['epoch']:.1f}",
    f"prediction {row['prediction']:.3f}",
    f"SIGReg {row['sigreg']:.2f}",
    f"rank {row['effective_rank']:.0f}",
  ]
  if "probe_linear" in row:
    words.append(f"probe {100 * row['probe_linear']:.1f}%")
  elif "probe_accuracy" in row:
    words.append(f"online probe {100 * row['probe_accuracy']:.1f}%")
  return ", ".join(words)


def describe_result(result: Mapping[str, Any]) -> str:
  """Returns what a finished command prints."""
  lines = [f"{result['step']} steps, {result['minutes']:.1f} minutes"]
  if "probes" in result:
    lines += ["", format_table(result["probes"]), ""]
  lines += [
    f"{name}: {path}" for name, path in result.get("pictures", {}).items()
  ]
  return "\n".join(lines)
