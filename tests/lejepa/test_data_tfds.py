"""Datasets that TFDS prepared, written and read without TensorFlow."""

import io
import pathlib
import socket
import sys

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from jlejepa.data import describe, load_dataset, reading

SHARED = pathlib.Path(__file__).parents[2].parent / "shared" / "data"
RNG = np.random.default_rng(0)


def png(pixels):
  file = io.BytesIO()
  Image.fromarray(pixels.squeeze()).save(file, "PNG")
  file.seek(0)
  return file


def pictures(count, shape=(6, 8, 3)):
  return RNG.integers(0, 256, (count, *shape), np.uint8)


def prepare(folder, name, features, splits, *, supervised=None):
  """Writes records, `splits` being name to examples, and returns the folder."""

  def info(self):
    return self.dataset_info_from_configs(
      features=tfds.features.FeaturesDict(features), supervised_keys=supervised
    )

  made = type(
    name.title().replace("_", ""),
    (tfds.core.GeneratorBasedBuilder,),
    {
      "VERSION": tfds.core.Version("1.0.0"),
      "__module__": __name__,
      "_info": info,
      "_split_generators": lambda self, manager: {
        split: enumerate(examples) for split, examples in splits.items()
      },
      "_generate_examples": None,
    },
  )
  assert made.name == name
  made(data_dir=str(folder), file_format="array_record").download_and_prepare()
  return folder


IMAGE = tfds.features.Image(shape=(6, 8, 3), encoding_format="png")
LABEL = tfds.features.ClassLabel(names=["cat", "dog"])


def examples(images, labels=None):
  if labels is None:
    return [{"image": png(x)} for x in images]
  return [
    {"image": png(x), "label": int(y)}
    for x, y in zip(images, labels, strict=True)
  ]


TRAIN, TEST = pictures(12), pictures(4)
LABELS = np.arange(12) % 2


@pytest.fixture(scope="module")
def pets(tmp_path_factory):
  """Two splits with labels."""
  return prepare(
    tmp_path_factory.mktemp("data"),
    "small_pets",
    {"image": IMAGE, "label": LABEL},
    {"train": examples(TRAIN, LABELS), "test": examples(TEST, LABELS[:4])},
  )


def by_content(images, found):
  """Returns which of the images each found one is (TFDS shuffles them)."""
  return [int(np.argmax((images == x).all((1, 2, 3)))) for x in found]


@pytest.mark.parametrize("prefix", ["", "tfds:"])
def test_images_labels_and_names(pets, prefix):
  data = load_dataset(f"{prefix}small_pets", data_dir=pets)
  order = by_content(TRAIN, data.images)
  assert sorted(order) == list(range(12))
  np.testing.assert_array_equal(data.images, TRAIN[order])
  np.testing.assert_array_equal(data.labels, LABELS[order])
  assert data.labels.dtype == np.int32
  assert data.class_names == ("cat", "dog")
  assert describe(data) == "small_pets: 12 images of 6x8x3, 2 classes"
  test = load_dataset("small_pets", "test", data_dir=str(pets))
  assert sorted(by_content(TEST, test.images)) == list(range(4))
  assert "tensorflow" not in sys.modules


def test_a_slice_of_a_split(pets, refused):
  whole = load_dataset("small_pets", data_dir=pets)
  part = load_dataset("small_pets:1.0.0", "train[:50%]", data_dir=pets)
  np.testing.assert_array_equal(part.images, whole.images[:6])
  refused(
    "small_pets: Error parsing",
    load_dataset,
    "small_pets",
    "train[:huh]",
    data_dir=pets,
  )


def test_lazy_images_are_the_eager_ones(pets, monkeypatch):
  eager = load_dataset("small_pets", data_dir=pets, size=4)
  monkeypatch.setattr(reading, "EAGER_PIXELS", 0)
  lazy = load_dataset("small_pets", data_dir=pets, size=4)
  assert eager.images.shape == lazy.images.shape == (12, 4, 4, 3)
  assert not isinstance(lazy.images, np.ndarray)
  np.testing.assert_array_equal(
    lazy.images[[3, 11, 3]], eager.images[[3, 11, 3]]
  )
  np.testing.assert_array_equal(lazy.labels, eager.labels)


def test_without_a_test_split_some_are_held_out(tmp_path):
  images = pictures(20)
  prepare(
    tmp_path,
    "train_alone",
    {"image": IMAGE, "label": LABEL},
    {"train": examples(images, np.arange(20) % 2)},
  )
  train = load_dataset("train_alone", data_dir=tmp_path)
  test = load_dataset("train_alone", "test", data_dir=tmp_path)
  found = by_content(images, train.images), by_content(images, test.images)
  assert sorted(found[0] + found[1]) == list(range(20))
  assert np.bincount(test.labels).tolist() == [2, 2]
  assert [i % 2 for i in found[0]] == train.labels.tolist()
  assert [i % 2 for i in found[1]] == test.labels.tolist()


@pytest.mark.parametrize("validation", [False, True])
def test_a_test_split_with_hidden_labels(tmp_path, validation, refused):
  hidden = [{"image": png(x), "label": -1} for x in TEST]
  splits = {"train": examples(TRAIN, LABELS), "test": hidden}
  name = "hidden_labels"
  if validation:
    splits["validation"] = examples(TRAIN[:3], LABELS[:3])
    name = "hidden_but_valid"
  prepare(tmp_path, name, {"image": IMAGE, "label": LABEL}, splits)
  if validation:
    test = load_dataset(name, "test", data_dir=tmp_path)
    assert sorted(test.labels) == [0, 0, 1]
  else:
    refused(
      "labels of test.*hidden", load_dataset, name, "test", data_dir=tmp_path
    )


def test_other_features(tmp_path):
  grey = pictures(4, (5, 5, 1))
  coarse = tfds.features.ClassLabel(num_classes=7)
  prepare(
    tmp_path,
    "grey_tensors",
    {
      "mask": tfds.features.Tensor(shape=(5, 5), dtype=np.uint8),
      "picture": tfds.features.Tensor(shape=(5, 5, 1), dtype=np.uint8),
      "coarse": coarse,
      "fine": tfds.features.ClassLabel(num_classes=9),
    },
    {
      "train": [
        {"mask": x[..., 0] * 0, "picture": x, "coarse": i, "fine": 8 - i}
        for i, x in enumerate(grey)
      ]
    },
    supervised=("picture", "fine"),
  )
  data = load_dataset("grey_tensors", data_dir=tmp_path, holdout=0)
  order = by_content(grey, data.images)
  assert sorted(order) == [0, 1, 2, 3]
  np.testing.assert_array_equal(data.labels, 8 - np.array(order))
  small = load_dataset("grey_tensors", data_dir=tmp_path, holdout=0, size=3)
  assert small.images.shape == (4, 3, 3, 1)


def test_images_of_unequal_size_and_without_labels(tmp_path, refused):
  shapes = [(6, 8, 3), (9, 5, 3), (7, 7, 3)]
  prepare(
    tmp_path,
    "all_sizes",
    {"image": tfds.features.Image(encoding_format="png")},
    {"train": [{"image": png(pictures(1, s)[0])} for s in shapes]},
  )
  refused(
    "unequal size: give a size", load_dataset, "all_sizes", data_dir=tmp_path
  )
  data = load_dataset("all_sizes", data_dir=tmp_path, size=5)
  assert data.images[:].shape == (3, 5, 5, 3) and data.labels is None
  refused(
    "no labels", load_dataset, "all_sizes", "test", data_dir=tmp_path, size=5
  )


def test_damaged_images_and_records(tmp_path, refused):
  good = examples(TRAIN, LABELS)
  name = "damaged_images"
  features = {"image": IMAGE, "label": LABEL}
  bad = {"image": io.BytesIO(png(TRAIN[0]).getvalue()[:60]), "label": 1}
  prepare(tmp_path, name, features, {"train": [*good, bad]})
  data = load_dataset(name, data_dir=tmp_path, holdout=0)
  assert len(data.images) == len(data.labels) == 12
  assert len(data.left_out) == 1 and data.left_out[0].startswith("record ")
  order = by_content(TRAIN, data.images)
  np.testing.assert_array_equal(data.labels, LABELS[order])
  (file,) = tmp_path.glob("damaged_images/1.0.0/*.array_record*")
  whole = file.read_bytes()
  for end in (0, 100, len(whole) // 2, len(whole) - 1):
    file.write_bytes(whole[:end])
    refused(
      "TFDS dataset damaged_images", load_dataset, name, data_dir=tmp_path
    )
  file.unlink()
  refused("TFDS dataset damaged_images", load_dataset, name, data_dir=tmp_path)
  (tmp_path / name / "1.0.0" / "dataset_info.json").write_text("{")
  refused("TFDS dataset damaged_images", load_dataset, name, data_dir=tmp_path)


def test_a_dataset_without_a_training_split(tmp_path, refused):
  prepare(tmp_path, "other_parts", {"image": IMAGE}, {"extra": examples(TRAIN)})
  assert (
    len(load_dataset("other_parts", "extra", data_dir=tmp_path).images) == 12
  )
  refused(
    "no split 'train'; it has extra",
    load_dataset,
    "other_parts",
    data_dir=tmp_path,
  )


def test_a_dataset_of_no_images(tmp_path, refused):
  features = {"x": tfds.features.Tensor(shape=(3,), dtype=np.float32)}
  rows = [{"x": np.zeros(3, np.float32)}] * 3
  prepare(tmp_path, "only_numbers", features, {"train": rows})
  refused(
    "has no images: its features are x",
    load_dataset,
    "only_numbers",
    data_dir=tmp_path,
  )


def test_nothing_is_ever_downloaded(tmp_path, monkeypatch, refused):
  def no_network(*args, **kwargs):
    raise AssertionError("asked for the network")

  monkeypatch.setattr(socket, "create_connection", no_network)
  monkeypatch.setattr(socket.socket, "connect", no_network)
  monkeypatch.setattr(
    tfds.core.DatasetBuilder, "download_and_prepare", no_network
  )
  refused(
    r"cifar10 is not prepared in .*prepare it once.*pip install tensorflow",
    load_dataset,
    "cifar10",
    data_dir=tmp_path,
  )
  refused("did you mean cifar10", load_dataset, "cifra10", data_dir=tmp_path)
  refused(
    "is no file, folder or TFDS", load_dataset, "zzzzzzz", data_dir=tmp_path
  )
  refused(
    "BuilderConfig huh not found",
    load_dataset,
    "cifar10/huh",
    data_dir=tmp_path,
  )
  refused(
    "cannot be loaded at version",
    load_dataset,
    "cifar10:9.9.9",
    data_dir=tmp_path,
  )
  for name in (
    "tfds:",
    "../nowhere/x",
    "no such thing",
    "a" * 300,
    "~nobody/x",
    "a\0b",
  ):
    refused("TFDS dataset|is no file", load_dataset, name, data_dir=tmp_path)
  assert list(tmp_path.iterdir()) == []


def test_a_missing_package_is_named(monkeypatch, refused):
  monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
  monkeypatch.delitem(sys.modules, "jlejepa.data.prepared", raising=False)
  refused(
    r"needs the package tensorflow_datasets; .*\[data\]", load_dataset, "mnist"
  )


def test_cifar10_as_users_have_it():
  if not (SHARED / "cifar10").is_dir():
    pytest.skip("no cifar10 in ../shared/data")
  test = load_dataset("cifar10", "test", data_dir=SHARED)
  assert test.images.shape == (2000, 32, 32, 3)
  assert np.bincount(test.labels).tolist() == [200] * 10
  assert test.class_names[0] == "airplane"
  source = tfds.data_source("cifar10", split="test", data_dir=SHARED)
  for i in (0, 777, 1999):
    np.testing.assert_array_equal(test.images[i], source[i]["image"])
    assert test.labels[i] == source[i]["label"]
