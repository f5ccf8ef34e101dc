"""Datasets that TensorFlow Datasets has prepared, read without TensorFlow."""

import io
import os
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from jlejepa.data.dataset import Dataset, check_labels
from jlejepa.data.decoding import BadImage, decode, resize
from jlejepa.data.reading import Reader, read_images
from jlejepa.data.splits import TEST_NAMES, hold_out, own_split
from jlejepa.runtime.config import suggestion
from jlejepa.runtime.errors import UserError, require

CHUNK = 1024


def read_prepared(
  name: str,
  split: str,
  data_dir: str,
  size: int,
  max_bytes: int,
  holdout: float,
) -> Dataset:
  """Reads images and labels of a dataset that lies prepared in `data_dir`.

  Args:
    name: as TFDS writes it, `NAME[/CONFIG][:VERSION]`.
    split: as `load_dataset`, like the rest.
    data_dir: see there.
    size: see there.
    max_bytes: see there.
    holdout: see there.

  Raises:
    UserError: for an unknown name or split, a dataset that is not prepared or
      damaged, or one without images.
  """
  builder = _builder(name, data_dir)
  splits = list(builder.info.splits)
  image_key, label_key = _keys(builder.info, name)
  if "[" in split or "+" in split:
    try:
      builder.info.splits[split]
    except Exception as error:  # an AssertionError or ValueError, or others
      raise UserError(f"{name}: {_first_line(error)}") from error
    chosen = [split]
  else:
    chosen = [own_split(split, splits, name) or "train"]
    require(
      chosen[0] in splits,
      f"{name} has no split {split!r}; it has {', '.join(splits)}",
    )
  if split == "test":
    chosen += [part for part in TEST_NAMES if part in splits]
  made = split in ("train", "test") and not set(TEST_NAMES) & set(splits)
  # Some test splits come with every label hidden.
  for part in chosen:
    source = _open(builder, part, image_key, name)
    labels, names = _labels(source, builder.info, label_key, name)
    if labels is not None:
      break
  require(
    split != "test" or label_key is None or labels is not None,
    f"TFDS dataset {name}: the labels of {', '.join(chosen)} are all hidden:"
    " there is nothing to test on",
  )
  index = np.arange(len(source))
  if made:
    index = hold_out(split, labels, index, holdout, name)
  reader = _reader(source, index, labels, builder.info, image_key, size, name)
  images, good, left_out = read_images(reader, max_bytes, name)
  labels = None if labels is None else labels[index[good]]
  return Dataset(images, labels, names, name, left_out)


def _builder(name: str, data_dir: str) -> Any:
  where = {"data_dir": os.path.expanduser(data_dir)} if data_dir else {}
  try:
    builder = tfds.builder(name, **where)
  except tfds.core.DatasetNotFoundError:
    known = tfds.list_builders(with_community_datasets=False)
    hint = suggestion(name.split("/")[0].split(":")[0], known)
    raise UserError(
      f"{name} is no file, folder or TFDS dataset{hint}"
    ) from None
  except ImportError:
    raise
  except Exception as error:  # wrong versions, configurations, damaged files
    raise UserError(f"TFDS dataset {name}: {_first_line(error)}") from error
  folder = builder.data_path
  require(
    (folder / "dataset_info.json").exists(),
    f"TFDS dataset {name} is not prepared in {folder}: name the right data_dir,"
    " or prepare it once with a network: pip install tensorflow-cpu && python"
    ' -c "import tensorflow_datasets as tfds;'
    f" tfds.data_source('{name}', data_dir='{builder.data_dir_root}')\"",
  )
  return builder


def _keys(info: Any, name: str) -> tuple[str, str | None]:
  """Returns the names of the features that are the image and its label."""
  features = info.features
  images = [key for key, f in features.items() if _is_image(f)]
  labels = [
    key
    for key, f in features.items()
    if isinstance(f, tfds.features.ClassLabel)
  ]
  main = info.supervised_keys or ()
  first = lambda keys, usual: next(
    (key for key in (*main, usual, *keys) if key in keys), None
  )
  image = first(images, "image")
  require(
    image is not None,
    f"TFDS dataset {name} has no images: its features are"
    f" {', '.join(features)}",
  )
  return image, first(labels, "label")


def _is_image(feature: Any) -> bool:
  if isinstance(feature, tfds.features.Image):
    return feature.np_dtype in (np.uint8, np.uint16)
  plain = type(feature) is tfds.features.Tensor and feature.np_dtype == np.uint8
  return plain and len(feature.shape) == 3 and feature.shape[-1] in (1, 3, 4)


def _open(builder: Any, split: str, image_key: str, name: str) -> Any:
  """Returns the records of a split, with images as they are stored."""
  decoders = None
  if isinstance(builder.info.features[image_key], tfds.features.Image):
    decoders = {image_key: tfds.decode.SkipDecoding()}
  kind = builder.info.file_format
  require(
    kind in tfds.core.FileFormat.with_random_access(),
    f"TFDS dataset {name} is stored as {kind and kind.value}, which has no"
    " random access: prepare it once more with tfds.data_source, in another"
    " data_dir",
  )
  try:
    source = builder.as_data_source(split=split, decoders=decoders)
    require(len(source), f"TFDS dataset {name}: split {split} is empty")
    source[0]
  except (UserError, ImportError):
    raise
  except Exception as error:  # whatever a damaged file makes the reader say
    raise _unreadable(name, split, error) from error
  return source


def _labels(
  source: Any, info: Any, key: str | None, name: str
) -> tuple[np.ndarray | None, tuple[str, ...] | None]:
  if key is None:
    return None, None
  found: list[int] = []
  try:
    for start in range(0, len(source), CHUNK):
      numbers = range(start, min(start + CHUNK, len(source)))
      # A file that was cut gives records of None.
      found += [int(item[key]) for item in source.__getitems__(list(numbers))]
  except Exception as error:
    raise _unreadable(name, "records", error) from error
  names = tuple(info.features[key].names)
  labels = check_labels(np.array(found), len(source), names, name)
  return labels, None if labels is None else names


def _reader(source, index, labels, info, key, size, name) -> Reader:
  feature = info.features[key]
  height, width, channels = feature.shape
  channels = channels or 3
  known = height is not None and width is not None
  require(
    known or size,
    f"TFDS dataset {name} has images of unequal size: give a size to which they"
    " are resized (config.data.size)",
  )

  def read(number: int) -> np.ndarray:
    try:
      value = source[int(index[number])][key]
    except Exception as error:
      raise BadImage(_first_line(error)) from error
    if value is None:
      raise BadImage("an empty record")
    if isinstance(value, bytes):
      return decode(io.BytesIO(value), size=size, channels=channels)
    return resize(value, size)

  return Reader(
    read=read,
    names=[f"record {i}" for i in index],
    labels=None if labels is None else labels[index],
    shape=(size, size, channels) if size else (height, width, channels),
    pixels=len(index) * height * width if known else float("inf"),
  )


def _unreadable(name: str, what: str, error: Exception) -> UserError:
  return UserError(
    f"TFDS dataset {name}: {what} cannot be read ({_first_line(error)}):"
    " prepare it again"
  )


def _first_line(error: Exception) -> str:
  text = str(error)
  if text.startswith("Failed to construct dataset"):  # with which arguments
    text = text.partition('}": ')[2]
  return " ".join(text.split())[:160] or type(error).__name__
