"""Images in a folder and its sub-folders."""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from jlejepa.data.dataset import Dataset
from jlejepa.data.decoding import BadImage, decode, measure
from jlejepa.data.reading import THREADS, Reader, check_loss, read_images
from jlejepa.data.splits import TEST_NAMES, hold_out, own_split
from jlejepa.runtime.errors import UserError, require
from jlejepa.runtime.files import os_reason

EXTENSIONS = (
  ".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff",
  ".webp",
)  # fmt: skip
SPLITS = ("train", *TEST_NAMES)


def read_folder(
  folder: Path, split: str, size: int, max_bytes: int, holdout: float
) -> Dataset:
  """Reads the images of a folder as RGB, in the order of their paths.

  The folder has splits of its own if it has a sub-folder `train`. Labels are
  the first sub-folders (of the split), if every image is in one and there are
  at least two. Those of `train` count: if its images have no labels, those of
  the other splits have none either, and if they have, all must. Hidden files
  and folders, and files with other endings than `EXTENSIONS`, are no images.

  Args:
    folder: where to look.
    split: as `load_dataset`, like the rest.
    size: see there.
    max_bytes: see there.
    holdout: see there.

  Raises:
    UserError: for a folder without images, with one image, with more than half
      of them damaged, with unequal sizes and no `size`, or with images in no
      class beside a labelled `train`.
  """
  name = str(folder)
  own = [part for part in SPLITS if (folder / part).is_dir()]
  chosen = own_split(split, own if "train" in own else (), name)
  made = "train" not in own or not set(TEST_NAMES) & set(own)
  root = folder if "train" not in own else folder / (chosen or "train")
  files = list(_walk(root, name))
  require(
    files,
    f"{root} has no images ({', '.join(EXTENSIONS)}); a TFDS dataset is named"
    " tfds:NAME",
  )
  if "train" in own and root.name != "train":
    known = _classes(list(_walk(folder / "train", name)))
  else:
    known = _classes(files)
  labels = _labels(files, known, str(root))
  sizes, left_out = _measure_all(root, files, name)
  shape = _shape(sizes, size, str(root))
  good = [i for i, file in enumerate(files) if file in sizes]
  if made:
    keys = [files[i] for i in good]
    some_labels = None if labels is None else labels[good]
    part = hold_out(split, some_labels, keys, holdout, name)
    good = [good[i] for i in part]
  files = [files[i] for i in good]
  labels = None if labels is None else labels[good]
  reader = Reader(
    read=lambda i: decode(root / files[i], size=size),
    names=files,
    labels=labels,
    shape=shape,
    pixels=sum(sizes[file][0] * sizes[file][1] for file in files),
  )
  images, index, damaged = read_images(reader, max_bytes, str(root))
  return Dataset(
    images=images,
    labels=None if labels is None else labels[index],
    class_names=None if labels is None else known,
    name=name,
    left_out=(*left_out, *damaged),
  )


def _walk(root: Path, name: str) -> Iterator[str]:
  """Yields the paths of images under a root, relative to it and in order."""

  def inside(folder: Path, parents: tuple[str, ...]) -> Iterator[str]:
    real = os.path.realpath(folder)
    # A link to a folder above would lead round and round.
    if real in parents:
      return
    try:
      entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
      raise UserError(
        f"{name}: {folder} cannot be read: {os_reason(error)}"
      ) from error
    for entry in entries:
      if entry.name.startswith("."):
        continue
      # entry.is_dir() raises for a link to itself.
      if os.path.isdir(entry.path):
        yield from inside(Path(entry.path), (*parents, real))
      elif entry.name.lower().endswith(EXTENSIONS):
        yield os.path.relpath(entry.path, root)

  yield from inside(root, ())


def _classes(files: list[str]) -> tuple[str, ...] | None:
  """Returns the first sub-folders, None unless all files are in two or more."""
  parts = [Path(file).parts for file in files]
  if any(len(part) < 2 for part in parts):
    return None
  classes = tuple(sorted({part[0] for part in parts}))
  return classes if len(classes) > 1 else None


def _labels(
  files: list[str], known: tuple[str, ...] | None, root: str
) -> np.ndarray | None:
  if known is None:
    return None
  numbers = {label: number for number, label in enumerate(known)}
  loose = next((file for file in files if len(Path(file).parts) < 2), None)
  require(
    loose is None,
    f"{root}: {loose} is in no sub-folder of a class, as the training images"
    " are: give it one, or move it out of the data",
  )
  first = [Path(file).parts[0] for file in files]
  strange = next((label for label in first if label not in numbers), None)
  require(
    strange is None,
    f"{root} has {strange!r}, which is no class of the training images",
  )
  return np.array([numbers[label] for label in first], np.int32)


def _measure_all(
  root: Path, files: list[str], name: str
) -> tuple[dict[str, tuple[int, int]], list[str]]:
  """Returns width and height by file, and a text per file that is no image."""

  def attempt(file: str) -> tuple[int, int] | BadImage:
    try:
      return measure(root / file)
    except BadImage as error:
      return error

  with ThreadPoolExecutor(THREADS) as pool:
    results = dict(zip(files, pool.map(attempt, files), strict=True))
  bad = {f: r for f, r in results.items() if isinstance(r, BadImage)}
  left_out = [f"{file}: {reason}" for file, reason in bad.items()]
  check_loss(left_out, len(files), name)
  return {f: r for f, r in results.items() if f not in bad}, left_out


def _shape(
  sizes: dict[str, tuple[int, int]], size: int, name: str
) -> tuple[int, int, int]:
  """Returns the shape of every image.

  Raises:
    UserError: for unequal sizes and no `size`, naming two images.
  """
  if size:
    return size, size, 3
  first = next(iter(sizes))
  other = next((f for f in sizes if sizes[f] != sizes[first]), None)
  if other is not None:
    texts = ["{} is {}x{}".format(f, *sizes[f]) for f in (first, other)]
    raise UserError(
      f"{name}: images of unequal size: {', '.join(texts)}: give a size to"
      " which they are resized (config.data.size)"
    )
  width, height = sizes[first]
  return height, width, 3
