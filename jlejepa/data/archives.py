"""Examples from an .npz or .npy file."""

import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from jlejepa.data.dataset import Dataset, from_arrays
from jlejepa.data.splits import TEST_NAMES, hold_out, own_split
from jlejepa.runtime.errors import UserError, require

PAIRS = (("images", "labels"), ("x", "y"))
SPLITS = ("train", *TEST_NAMES)


def read_archive(
  path: Path, split: str, max_bytes: int, holdout: float
) -> Dataset:
  """Reads the arrays of one file, as `from_arrays` takes them.

  An .npz holds `images` and `labels`, or `x` and `y`, or one array; or such
  pairs for each split, as `x_train` or `train_images`; and perhaps
  `class_names`. An .npy above `max_bytes` stays on the disk.

  Args:
    path: of the file.
    split: as `load_dataset`, like the rest.
    max_bytes: see there.
    holdout: see there.

  Raises:
    UserError: for a file that is missing, damaged, larger than `max_bytes` or
      has other arrays.
  """
  name = str(path)
  try:
    arrays, held = _read(path, split, max_bytes)
  except (UserError, KeyboardInterrupt):
    raise
  except Exception as error:  # zip, zlib, header and memory errors all occur
    reason = " ".join(str(error).split())[:120] or type(error).__name__
    raise UserError(
      f"{name} cannot be read ({reason}): write it with np.savez or np.save,"
      " numbers only"
    ) from error
  dataset = from_arrays(**arrays, name=name)
  if held:
    return dataset
  keys = range(len(dataset.images))
  index = hold_out(split, dataset.labels, keys, holdout, name)
  if len(index) == len(keys):
    return dataset
  require(len(index) > 1, f"{name}: {split} has one image, give at least 2")
  return dataset._replace(
    images=dataset.images[index], labels=dataset.labels[index]
  )


def _read(
  path: Path, split: str, max_bytes: int
) -> tuple[dict[str, Any], bool]:
  """Returns arguments of `from_arrays`, and if the split is the file's own."""
  require(os.path.isfile(path), f"{path}: there is no such file")
  if path.suffix == ".npy":
    own_split(split, (), str(path))
    mode = "r" if os.path.getsize(path) > max_bytes else None
    return {"images": np.load(path, mmap_mode=mode, allow_pickle=False)}, False
  with zipfile.ZipFile(path) as archive:
    _check_list(archive)
    sizes = {
      item.filename.removesuffix(".npy"): item.file_size
      for item in archive.infolist()
      if item.filename.endswith(".npy")
    }
    keys, held = _keys(list(sizes), split, path)
    wanted = sum(sizes[key] for key in keys.values())
    require(
      wanted <= max_bytes,
      f"{path}: {wanted / 2**30:.1f} GiB of arrays are more than the"
      f" {max_bytes / 2**30:.1f} GiB of max_bytes: raise it, or save the images"
      " as .npy, which can stay on the disk",
    )
    arrays = {field: _member(archive, key) for field, key in keys.items()}
  return arrays, held


def _check_list(archive: zipfile.ZipFile) -> None:
  """Finds out damage by which labels would be overlooked.

  Raises:
    ValueError: a name in the list at the end is not the one beside the data,
      or an entry has a comment, which NumPy never writes and which may be
      the next entry.
  """
  for item in archive.infolist():
    archive.open(item).close()
    if item.comment:
      raise ValueError(f"{item.filename} has a comment")


def _member(archive: zipfile.ZipFile, key: str) -> np.ndarray:
  """Reads one array and compares its checksum.

  `np.load` stops where an array ends, which may be before the checksum is
  looked at.
  """
  with archive.open(f"{key}.npy") as file:
    array = np.lib.format.read_array(file, allow_pickle=False)
    if file.read(1):
      raise ValueError(f"{key} has bytes behind its end")
  return array


def _keys(
  files: list[str], split: str, path: Path
) -> tuple[dict[str, str], bool]:
  """Returns which array of an archive is images, labels and class names."""
  found = {}  # split -> its keys
  for part in SPLITS:
    for pair in PAIRS:
      for form in (f"{{}}_{part}", f"{part}_{{}}"):
        found |= _pair(files, part, *(form.format(word) for word in pair))
  own = own_split(split, found, str(path))
  if own is not None:
    keys = found[own]
    require(
      "labels" in keys or not any("labels" in found[part] for part in found),
      f"{path} has labels, but none for {keys['images']}",
    )
  elif "train" in found:
    keys = found["train"]
  else:
    whole: dict[str, dict[str, str]] = {}
    for pair in PAIRS:
      whole = whole or _pair(files, "", *pair)
    arrays = [key for key in files if key != "class_names"]
    require(
      whole or len(arrays) == 1,
      f"{path} has the arrays {', '.join(files)}: name them images and labels,"
      " or x and y",
    )
    keys = whole[""] if whole else {"images": arrays[0]}
  if "class_names" in files:
    keys = keys | {"class_names": "class_names"}
  # With a test split in the file, all of its training split is for training.
  return keys, own is not None and any(name in found for name in TEST_NAMES)


def _pair(
  files: list[str], part: str, images: str, labels: str
) -> dict[str, dict[str, str]]:
  if images not in files:
    return {}
  keys = {"images": images}
  return {part: keys | ({"labels": labels} if labels in files else {})}
