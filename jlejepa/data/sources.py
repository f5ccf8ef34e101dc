"""Finds examples by the name that a user gives."""

import os
from pathlib import Path

import numpy as np

from jlejepa.data.dataset import Dataset
from jlejepa.data.splits import hold_out, own_split
from jlejepa.runtime.errors import (
  UserError,
  nonnegative_int,
  positive_int,
  require,
)

WANTED = (
  "give digits, the name of a TFDS dataset, a folder of images, or an .npz or"
  " .npy file"
)


def load_dataset(
  source: str | os.PathLike,
  split: str = "train",
  *,
  data_dir: str = "",
  size: int = 0,
  max_bytes: int = 8 * 2**30,
  holdout: float = 0.2,
) -> Dataset:
  """Loads examples. Nothing is downloaded.

  A source with splits of its own keeps them; `"test"` may be its validation
  split. Where it has no test split but labels, `holdout` of each class is left
  out of `"train"` and makes up `"test"`, always the same ones.

  Args:
    source: `digits` (scikit-learn's, 1,797 of 8x8x1); `tfds:NAME` or `NAME`, a
      prepared dataset of TensorFlow Datasets; a folder of images; or an `.npz`
      or `.npy` file. A folder goes before a dataset of the same name.
    split: `"train"`, `"test"`, or what else the source has; for TFDS also a
      slice such as `"train[:10%]"`.
    data_dir: where TFDS keeps its datasets; "" for its own default.
    size: S: images of a folder or of TFDS are resized, the shorter side to S,
      and cropped to the central S x S; 0 leaves them as they are.
    max_bytes: the most memory that images may take. Above it those of folders
      and TFDS are decoded again each time they are needed.
    holdout: in [0, 1).

  Raises:
    UserError: for anything that cannot be used, in one line.
  """
  require(
    isinstance(source, str | os.PathLike), f"source {source!r} is not a text"
  )
  source = os.fspath(source)
  nonnegative_int("size", size)
  positive_int("max_bytes", max_bytes)
  require(
    isinstance(holdout, int | float) and 0 <= holdout < 1,
    f"holdout must be a number from 0 to below 1, got {holdout!r}",
  )
  require(source, f"no source of images: {WANTED}")
  # The readers need the extra `data`, so they are imported when called for.
  try:
    if source == "digits":
      return _digits(split, holdout)
    path = Path(os.path.expanduser(source))
    if source.startswith("tfds:"):
      name = source.removeprefix("tfds:")
    elif path.suffix in (".npz", ".npy"):
      from jlejepa.data.archives import read_archive

      return read_archive(path, split, max_bytes, holdout)
    elif os.path.isdir(path):  # pathlib raises for long names
      from jlejepa.data.folders import read_folder

      return read_folder(path, split, size, max_bytes, holdout)
    else:
      require(
        not os.path.exists(path), f"{source} is no file of images: {WANTED}"
      )
      name = source
    from jlejepa.data.prepared import read_prepared

    return read_prepared(name, split, data_dir, size, max_bytes, holdout)
  except ImportError as error:
    raise UserError(
      f"{source} needs the package {error.name or error}; pip install"
      " 'jplanet[data]' brings what most sources need"
    ) from error


def _digits(split: str, holdout: float) -> Dataset:
  from sklearn.datasets import load_digits

  own_split(split, (), "digits")
  bunch = load_digits()
  images = np.rint(bunch.images * (255 / 16)).astype(np.uint8)[..., None]
  labels = bunch.target.astype(np.int32)
  index = hold_out(split, labels, range(len(labels)), holdout, "digits")
  names = tuple(str(name) for name in bunch.target_names)
  return Dataset(images[index], labels[index], names, "digits")
