"""Damage the files that LeJEPA learns from; fuzz.py calls these.

Of every damaged thing one of two is required: one line that refuses it, or
examples with the values that were there before. Where a format has no checksum
nobody can tell a pixel that has changed: those are counted.
"""

import collections
import io
import shutil
import zipfile
from pathlib import Path

import numpy as np
from mutate import damage, damage_folder, one_line, patiently
from PIL import Image

from jlejepa.data import load_dataset
from jlejepa.data.decoding import BadImage, decode, measure
from jlejepa.runtime.errors import UserError

SHAPE, TURNED, COUNT = (12, 10, 3), (10, 12, 3), 12
FORMATS = {
  "png": {}, "jpg": dict(quality=80), "gif": {}, "bmp": {}, "webp": {},
  "tif": dict(compression="tiff_lzw"), "ppm": {},
}  # fmt: skip
KINDS = {"jpg": "JPEG", "tif": "TIFF"}


def make_images() -> np.ndarray:
  return np.random.default_rng(0).integers(0, 256, (COUNT, *SHAPE), np.uint8)


def encoded(image: np.ndarray, suffix: str) -> bytes:
  """Returns the bytes of an image file, turned by its EXIF data."""
  exif = Image.Exif()
  exif[0x0112] = 6
  options = FORMATS[suffix] | ({} if suffix == "gif" else {"exif": exif})
  file = io.BytesIO()
  kind = KINDS.get(suffix, suffix.upper())
  Image.fromarray(image).save(file, kind, **options)
  return file.getvalue()


def damage_head(data: bytes, rng) -> bytes:
  """Damages a file: its first bytes in half of the cases, which say most."""
  if rng.random() < 0.5:
    return damage(data, rng)
  return damage(data[:64], rng) + data[64:]


def fuzz_images(count: int, rng, folder: Path):
  """Damages image files."""
  results = collections.Counter()
  whole = {suffix: encoded(make_images()[0], suffix) for suffix in FORMATS}
  pixels = {}
  for suffix, data in whole.items():
    pixels[suffix] = decode(io.BytesIO(data))
  for _ in patiently(count):
    suffix = rng.choice(list(FORMATS))
    path = folder / f"x.{suffix}"
    path.write_bytes(damage_head(whole[suffix], rng))
    size = rng.choice((0, 0, 4))
    try:
      width, height = measure(path)
      found = decode(path, size=size)
    except BadImage as error:
      one_line(error)
      results["refused"] += 1
      continue
    assert found.dtype == np.uint8 and found.ndim == 3, found
    assert found.shape[2] == 3 and min(width, height) > 0, found.shape
    if size:
      assert found.shape == (size, size, 3), found.shape
      results["resized"] += 1
    else:
      same = np.array_equal(found, pixels[suffix])
      results["intact" if same else f"other pixels ({suffix})"] += 1
  return results


def fuzz_folders(count: int, rng, folder: Path):
  """Damages folders of images in two classes."""
  results = collections.Counter()
  images = make_images()
  numbers = {encoded(image, "png"): i for i, image in enumerate(images)}
  upright = [decode(io.BytesIO(data)) for data in numbers]
  for data, i in numbers.items():
    path = folder / "whole" / "ab"[i % 2] / f"{i:02d}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
  work = folder / "work"
  for _ in patiently(count):
    shutil.rmtree(work, ignore_errors=True)
    shutil.copytree(folder / "whole", work)
    what = damage_folder(work, rng)
    try:
      data = load_dataset(work, holdout=0)
    except UserError as error:
      one_line(error)
      results["refused"] += 1
      continue
    found = collections.Counter(
      (label_of(data, place), number_of(image, upright))
      for place, image in enumerate(data.images)
    )
    wanted = collections.Counter(
      (path.relative_to(work).parts[0] if data.class_names else None, number)
      for path in work.rglob("*.png")
      if path.is_file()
      and (number := numbers.get(path.read_bytes())) is not None
    )
    # Every file that is whole is there, under its class.
    assert not wanted - found, (what, wanted - found)
    other = sum(n for (_, i), n in found.items() if i is None)
    lost = "some left out" if data.left_out else "nothing left out"
    results["other pixels" if other else lost] += 1
  return results


def label_of(data, place: int) -> str | None:
  if data.labels is None:
    return None
  return data.class_names[data.labels[place]]


def number_of(image: np.ndarray, images) -> int | None:
  same = (i for i, other in enumerate(images) if np.array_equal(image, other))
  return next(same, None)


def fuzz_archives(count: int, rng, folder: Path):
  """Damages .npz and .npy files: their bytes, and the arrays in them."""
  results = collections.Counter()
  images, labels = make_images(), np.arange(COUNT) % 3
  wholes = []
  for save in (np.savez, np.savez_compressed):
    file = io.BytesIO()
    save(file, images=images, labels=labels)
    wholes.append(file.getvalue())
  file = io.BytesIO()
  np.save(file, images)
  plain = file.getvalue()
  for _ in patiently(count):
    kind = rng.random()
    path = folder / ("x.npy" if kind < 0.2 else "x.npz")
    if kind < 0.2:
      path.write_bytes(damage_head(plain, rng))
    elif kind < 0.7:
      path.write_bytes(damage_head(rng.choice(wholes), rng))
    else:
      damage_member(rng.choice(wholes), path, rng)
    try:
      data = load_dataset(path, holdout=0, max_bytes=2**20)
    except UserError as error:
      one_line(error)
      results["refused"] += 1
      continue
    same = np.array_equal(data.images, images)
    if path.suffix == ".npz":
      same &= data.labels is not None and np.array_equal(data.labels, labels)
    # Under its own checksum nothing can change.
    assert same or not 0.2 <= kind < 0.7, path.read_bytes()
    results["intact" if same else "other values without a checksum"] += 1
  return results


def damage_member(whole: bytes, path: Path, rng) -> None:
  """Writes an archive with damage to one array, and the right checksum."""
  with zipfile.ZipFile(io.BytesIO(whole)) as archive:
    members = {name: archive.read(name) for name in archive.namelist()}
  name = rng.choice(list(members))
  members[name] = damage_head(members[name], rng)
  with zipfile.ZipFile(path, "w") as archive:
    for member, content in members.items():
      archive.writestr(member, content)


def fuzz_prepared(count: int, rng, folder: Path):
  """Damages what TensorFlow Datasets has prepared."""
  results = collections.Counter()
  images, labels = make_images(), np.arange(COUNT) % 3
  prepare(folder / "whole", images, labels)
  upright = [decode(io.BytesIO(encoded(image, "png"))) for image in images]
  work = folder / "work"
  for _ in patiently(count):
    shutil.rmtree(work, ignore_errors=True)
    shutil.copytree(folder / "whole", work)
    # TFDS itself would read a pipe or a device until the memory is full.
    what = damage_folder(work / "shapes" / "1.0.0", rng, endless=False)
    try:
      data = load_dataset("shapes", data_dir=str(work), holdout=0)
    except UserError as error:
      one_line(error)
      results["refused"] += 1
      continue
    numbers = [number_of(image, upright) for image in data.images]
    assert None not in numbers, f"other pixels: {what}"
    if data.labels is not None:
      assert np.array_equal(data.labels, labels[numbers]), what
    whole = len(set(numbers)) == COUNT and data.labels is not None
    results["intact" if whole else "some left out"] += 1
  return results


def prepare(folder: Path, images: np.ndarray, labels: np.ndarray) -> None:
  """Writes a prepared dataset `shapes`."""
  import tensorflow_datasets as tfds

  features = {
    "image": tfds.features.Image(shape=TURNED, encoding_format="png"),
    "label": tfds.features.ClassLabel(names=["a", "b", "c"]),
  }
  examples = [
    {"image": io.BytesIO(encoded(image, "png")), "label": int(label)}
    for image, label in zip(images, labels, strict=True)
  ]

  class Shapes(tfds.core.GeneratorBasedBuilder):
    __module__ = "jlejepa.shapes"  # TFDS looks for files in its package.
    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
      return self.dataset_info_from_configs(
        features=tfds.features.FeaturesDict(features)
      )

    def _split_generators(self, manager):
      del manager
      return {"train": enumerate(examples)}

    def _generate_examples(self):
      raise NotImplementedError

  Shapes(
    data_dir=str(folder), file_format="array_record"
  ).download_and_prepare()
