"""What every probe demands of features and labels."""

from typing import NamedTuple

import numpy as np


class Labelled(NamedTuple):
  """Checked features and labels.

  Attributes:
    train_x: float32 `[N, D]`.
    train_y: integers `[N]` in `0 .. num_classes - 1`, each there at least once.
    test_x: float32 `[M, D]`.
    test_y: integers `[M]` in the same range.
    num_classes: how many classes there are.
  """

  train_x: np.ndarray
  train_y: np.ndarray
  test_x: np.ndarray
  test_y: np.ndarray
  num_classes: int


def check_labelled(train_x, train_y, test_x, test_y) -> Labelled:
  """Checks features and labels before anything is fitted to them.

  Raises:
    ValueError: for features that are not a finite `[N, D]`, features and labels
      of unequal lengths or widths, labels that are not integers from 0, a class
      with no training sample, or fewer than two classes.
  """
  train_x = check_features("training features", train_x)
  test_x = check_features("test features", test_x)
  if train_x.shape[1] != test_x.shape[1]:
    raise ValueError(
      f"training features have {train_x.shape[1]} columns, test features "
      f"{test_x.shape[1]}: take both from the same encoder"
    )
  train_y = check_labels("training", train_y, len(train_x))
  test_y = check_labels("test", test_y, len(test_x))
  num_classes = check_classes(train_y, test_y)
  return Labelled(train_x, train_y, test_x, test_y, num_classes)


def check_classes(train_y: np.ndarray, test_y: np.ndarray) -> int:
  """Returns how many classes there are.

  Args:
    train_y: integers `[N]` of at least 0.
    test_y: likewise, `[M]`.

  Raises:
    ValueError: for a class with no training sample, or fewer than two classes.
  """
  num_classes = 1 + int(max(train_y.max(), test_y.max()))
  if len(train_y) < num_classes:
    raise ValueError(
      f"{len(train_y)} training samples are too few for {num_classes} classes "
      "(labels count from 0): each class needs at least one"
    )
  counts = np.bincount(train_y, minlength=num_classes)
  if (counts == 0).any():
    raise ValueError(
      f"class {int(np.argmin(counts))} of 0 .. {num_classes - 1} has no "
      "training sample: number the labels from 0 without gaps"
    )
  if num_classes < 2:
    raise ValueError("all labels are 0: a probe needs at least two classes")
  return num_classes


def check_features(name: str, features) -> np.ndarray:
  """Returns features as float32 `[N, D]`.

  Raises:
    ValueError: for another shape, no sample, or a value that is not finite.
  """
  features = np.asarray(features)
  if features.ndim != 2 or not features.size:
    raise ValueError(
      f"{name} must have shape [N, D] with N and D above 0, got "
      f"{list(features.shape)}"
    )
  features = features.astype(np.float32)
  bad = ~np.isfinite(features).all(axis=1)
  if bad.any():
    raise ValueError(
      f"{name}: {bad.sum()} of {len(bad)} samples hold a nan or an infinity, "
      f"the first is sample {int(np.argmax(bad))}"
    )
  return features


def check_labels(name: str, labels, count: int) -> np.ndarray:
  """Returns labels as integers `[count]`.

  Raises:
    ValueError: for another shape, a type that is no integer, or one below 0.
  """
  labels = np.asarray(labels)
  if labels.shape != (count,):
    raise ValueError(
      f"{count} {name} features need {count} labels, got shape "
      f"{list(labels.shape)}"
    )
  if labels.dtype.kind not in "iu":
    raise ValueError(f"{name} labels must be integers, got {labels.dtype}")
  if labels.min() < 0:
    raise ValueError(
      f"{name} labels must be 0 or more, got {labels.min()}: leave unlabelled "
      "samples out"
    )
  return labels.astype(np.int64)


def hold_out(labels: np.ndarray, fraction: float) -> np.ndarray:
  """Marks the last `fraction` of each class, rounded down.

  Of each class, since a folder of images comes sorted by class.

  Args:
    labels: integers `[N]`.
    fraction: in `[0, 1)`.

  Returns:
    Booleans `[N]`.
  """
  held = np.zeros(len(labels), bool)
  for label in np.unique(labels):
    where = np.flatnonzero(labels == label)
    held[where[len(where) - int(fraction * len(where)) :]] = True
  return held


def accuracy(scores: np.ndarray, labels: np.ndarray) -> float:
  """Returns how often the highest of scores `[M, C]` is the label's."""
  return float(np.mean(np.argmax(scores, axis=1) == labels))
