"""A set of examples, and the checks that arrays pass to become one."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from jlejepa.runtime.errors import UserError, require

# A table of classes this long does not come from class labels.
MAX_CLASSES = 100_000


class Dataset(NamedTuple):
  """Examples with random access.

  Attributes:
    images: `len()` counts them and an array of indices selects from them:
      uint8 `[N, H, W, C]`, or float32 `[N, D]` or `[N, T, C]` for examples that
      are no images. A NumPy array, or a reader that decodes when asked.
    labels: int32 `[N]` from 0, -1 where unknown; None if nothing is labelled.
    class_names: the name of each label, or None.
    name: what messages call it.
    left_out: one text per file that could not be read: its name and why.
  """

  images: Any
  labels: np.ndarray | None = None
  class_names: tuple[str, ...] | None = None
  name: str = "arrays"
  left_out: tuple[str, ...] = ()

  @property
  def num_classes(self) -> int:
    """The number of classes, 0 without labels."""
    if self.labels is None:
      return 0
    if self.class_names is not None:
      return len(self.class_names)
    return 1 + int(self.labels.max())


def describe(dataset: Dataset) -> str:
  """Returns one line for a person: count, shape, classes, what is left out."""
  images = dataset.images
  shape = "x".join(str(size) for size in images.shape[1:])
  kind = "images" if images.dtype == np.uint8 else "examples"
  text = f"{dataset.name}: {len(images)} {kind} of {shape}"
  if not isinstance(images, np.ndarray):
    text += ", decoded when needed"
  if dataset.labels is None:
    text += ", no labels"
  else:
    text += f", {dataset.num_classes} classes"
    unknown = int((dataset.labels < 0).sum())
    text += f", {unknown} without a label" if unknown else ""
  if dataset.left_out:
    text += f", {len(dataset.left_out)} left out ({some(dataset.left_out)})"
  return text


def some(texts: Sequence[str], limit: int = 3) -> str:
  """Joins the first few of many texts."""
  rest = len(texts) - limit
  return "; ".join(texts[:limit]) + (f"; {rest} more" if rest > 0 else "")


def from_arrays(
  images: Any,
  labels: Any = None,
  class_names: Sequence[str] | None = None,
  name: str = "arrays",
) -> Dataset:
  """Makes a data set of arrays, without copying uint8 images or float32.

  Args:
    images: uint8 `[N, H, W, C]` or `[N, H, W]`; floats `[N, H, W, C]` in
      [0, 1], which become uint8; or floats `[N, D]` or `[N, T, C]`, vectors or
      series, which stay as they are.
    labels: integers `[N]` or `[N, 1]` from 0, or -1 for an unknown one.
    class_names: the name of each label.
    name: what messages call it.

  Raises:
    UserError: for unequal sizes, a single example, another type or shape,
      values that are not finite or out of range, or labels that do not fit.
  """
  images = _as_array(images, name)
  require(images.ndim, f"{name}: images must be an array, got {images!r:.50}")
  require(
    len(images) > 1,
    f"{name}: {len(images)} image: SIGReg compares images, give at least 2",
  )
  require(
    images.size, f"{name}: images of shape {list(images.shape)} are empty"
  )
  if images.dtype == np.uint8:
    images = _check_bytes(images, name)
  elif np.issubdtype(images.dtype, np.floating):
    images = _check_floats(images, name)
  else:
    raise UserError(
      f"{name}: images are {images.dtype}: give uint8 from 0 to 255"
      " (images.astype(np.uint8)) or floats"
    )
  if class_names is not None:
    class_names = tuple(str(item) for item in np.asarray(class_names).ravel())
  if labels is not None:
    labels = check_labels(labels, len(images), class_names, name)
  return Dataset(images, labels, class_names, name)


def check_labels(
  labels: Any, count: int, class_names: Sequence[str] | None, name: str
) -> np.ndarray | None:
  """Returns labels as int32 `[N]`, or None if not one of them is known.

  Raises:
    UserError: for another number of labels, for labels that are no integers,
      and for labels out of range.
  """
  labels = _as_array(labels, name, "labels")
  if labels.ndim == 2 and labels.shape[1] == 1:
    labels = labels[:, 0]
  require(
    labels.ndim == 1 and len(labels) == count,
    f"{name}: labels have shape {list(labels.shape)}: give one for each of the"
    f" {count} images",
  )
  require(
    np.issubdtype(labels.dtype, np.integer),
    f"{name}: labels are {labels.dtype}: give integers from 0",
  )
  low, high = int(labels.min()), int(labels.max())
  limit = MAX_CLASSES if class_names is None else len(class_names)
  require(
    low >= -1 and high < limit,
    f"{name}: labels run from {low} to {high}: give 0 to {limit - 1}, or -1 for"
    " an unknown one",
  )
  return None if high < 0 else labels.astype(np.int32)


def _as_array(value: Any, name: str, what: str = "images") -> np.ndarray:
  try:
    array = np.asarray(value)
  except ValueError:  # how NumPy refuses rows of unequal shapes
    array = None
  if array is not None and array.dtype != object:
    return array
  shapes = _shapes(value)
  if len(shapes) > 1:
    (first, shape), (second, other) = list(shapes.items())[:2]
    raise UserError(
      f"{name}: {what} of unequal size: number {shape} is {list(first)},"
      f" number {other} is {list(second)}: resize them to one size"
    )
  raise UserError(f"{name}: {what} are objects, not numbers: give an array")


def _shapes(value: Any) -> dict[tuple[int, ...], int]:
  """Returns the shapes of some items and the first item with each."""
  shapes: dict[tuple[int, ...], int] = {}
  try:
    for number, item in enumerate(value):
      shapes.setdefault(np.shape(item), number)
  except (TypeError, ValueError):
    return {}
  return shapes


def _check_bytes(images: np.ndarray, name: str) -> np.ndarray:
  if images.ndim == 3:
    return images[..., None]
  require(
    images.ndim == 4,
    f"{name}: uint8 images have shape {list(images.shape)}: give [N, H, W, C]"
    " or [N, H, W], or floats for vectors",
  )
  _check_channels_last(images, name)
  return images


def _check_floats(images: np.ndarray, name: str) -> np.ndarray:
  require(
    images.ndim in (2, 3, 4),
    f"{name}: floats have shape {list(images.shape)}: give [N, H, W, C] for"
    " images, [N, D] for vectors or [N, T, C] for series",
  )
  low, high = float(images.min()), float(images.max())
  require(
    np.isfinite(low) and np.isfinite(high),
    f"{name}: images have values that are not finite: remove them",
  )
  if images.ndim < 4:
    return images.astype(np.float32, copy=False)
  _check_channels_last(images, name)
  require(
    low >= 0 and high <= 1,
    f"{name}: float images run from {low:g} to {high:g}: scale them to [0, 1],"
    " or give uint8",
  )
  return np.rint(images * 255.0).astype(np.uint8)


def _check_channels_last(images: np.ndarray, name: str) -> None:
  first, last = images.shape[1], images.shape[3]
  require(
    last <= 4 or first > 4,
    f"{name}: images of shape {list(images.shape)} have their channels first:"
    " give [N, H, W, C] (images.transpose(0, 2, 3, 1))",
  )
