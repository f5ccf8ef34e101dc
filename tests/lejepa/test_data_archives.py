"""Archives of arrays, whole and damaged."""

import zipfile

import numpy as np
import pytest

from jlejepa.data import load_dataset
from jlejepa.runtime.errors import UserError

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (10, 4, 5, 3), np.uint8)
LABELS = np.arange(10) % 2


# Archives.


def save(path, **arrays):
  np.savez(path, **arrays)
  return path


@pytest.mark.parametrize("names", [("images", "labels"), ("x", "y")])
def test_an_archive_gives_images_labels_and_names(tmp_path, names):
  x, y = names
  path = save(
    tmp_path / "a.npz", **{x: IMAGES, y: LABELS}, class_names=["cat", "dog"]
  )
  data = load_dataset(path, holdout=0)
  np.testing.assert_array_equal(data.images, IMAGES)
  np.testing.assert_array_equal(data.labels, LABELS)
  assert data.class_names == ("cat", "dog")
  train, test = load_dataset(path), load_dataset(path, "test")
  assert len(train.images) == 8 and len(test.images) == 2
  assert set(test.labels) == {0, 1}
  both = np.concatenate([train.images, test.images])
  assert sorted(both.tolist()) == sorted(IMAGES.tolist())


@pytest.mark.parametrize("form", ["{}_{}", "{1}_{0}"])
def test_an_archive_keeps_its_own_splits(tmp_path, form, refused):
  part = lambda word, split: form.format(word, split)
  arrays = {
    part("images", "train"): IMAGES,
    part("labels", "train"): LABELS,
    part("images", "test"): IMAGES[:4],
    part("labels", "test"): LABELS[:4],
  }
  path = save(tmp_path / "a.npz", **arrays)
  assert len(load_dataset(path).images) == 10
  assert len(load_dataset(path, "test").images) == 4
  refused("no split 'tests'", load_dataset, path, "tests")
  del arrays[part("labels", "test")]
  save(path, **arrays)
  refused("has labels, but none for", load_dataset, path, "test")


def test_a_training_part_alone_is_split(tmp_path):
  path = save(tmp_path / "a.npz", x_train=IMAGES, y_train=LABELS)
  assert len(load_dataset(path).images) == 8
  assert len(load_dataset(path, "test").images) == 2


def test_arrays_without_labels(tmp_path, refused):
  path = save(tmp_path / "a.npz", whatever=IMAGES)
  data = load_dataset(path)
  assert data.labels is None and len(data.images) == 10
  refused("no labels", load_dataset, path, "test")
  np.save(tmp_path / "b.npy", IMAGES)
  np.testing.assert_array_equal(load_dataset(tmp_path / "b.npy").images, IMAGES)
  large = load_dataset(tmp_path / "b.npy", max_bytes=100).images
  assert isinstance(large.base, np.memmap)
  np.testing.assert_array_equal(large[[3, 1]], IMAGES[[3, 1]])


class Trap:
  """Leaves a mark if its pickle is ever read."""

  def __init__(self, path):
    self.path = path

  def __reduce__(self):
    return open, (str(self.path), "w")


def test_bad_archives_are_refused(tmp_path, refused):
  path = tmp_path / "a.npz"
  save(path, a=IMAGES, b=IMAGES)
  refused("has the arrays a, b: name them", load_dataset, path)
  save(path, images=np.array([Trap(tmp_path / "mark")] * 3, object))
  refused("cannot be read .*allow_pickle", load_dataset, path)
  np.save(tmp_path / "o.npy", np.array([Trap(tmp_path / "mark")] * 3, object))
  refused("cannot be read", load_dataset, tmp_path / "o.npy")
  path.write_bytes(__import__("pickle").dumps(Trap(tmp_path / "mark")))
  refused("cannot be read", load_dataset, path)
  assert not (tmp_path / "mark").exists()
  save(path, images=IMAGES, labels=LABELS)
  refused("more than the 0.0 GiB of max_bytes", load_dataset, path, max_bytes=9)
  whole = path.read_bytes()
  for end in (0, 10, len(whole) // 2, len(whole) - 1):
    path.write_bytes(whole[:end])
    refused("cannot be read", load_dataset, path)
  with zipfile.ZipFile(path, "w") as archive:
    archive.writestr("images.npy", b"no array")
  refused("cannot be read .*magic string", load_dataset, path)
  (tmp_path / "d.npz").mkdir()
  refused("no such file", load_dataset, tmp_path / "d.npz")
  (tmp_path / "text.txt").write_text("hello")
  refused("no file of images", load_dataset, tmp_path / "text.txt")


def test_a_flipped_bit_in_an_archive_is_found(tmp_path):
  """`np.load` lets some pass: 5 of the 120,000 that this file has."""
  images = np.random.default_rng(0).integers(0, 9, (40, 16, 16, 3), np.uint8)
  path = tmp_path / "x.npz"
  np.savez_compressed(path, images=images)
  whole = path.read_bytes()
  refusals = 0
  # They are where the compressed data begin.
  for bit in range(8 * 130, 8 * 230):
    data = bytearray(whole)
    data[bit // 8] ^= 1 << bit % 8
    path.write_bytes(data)
    try:
      found = load_dataset(path).images
    except UserError:
      refusals += 1
      continue
    np.testing.assert_array_equal(found, images, err_msg=f"bit {bit}")
  assert refusals > 700


def test_labels_are_not_overlooked_where_the_list_of_arrays_is_damaged(
  tmp_path, refused
):
  path = save(tmp_path / "a.npz", images=IMAGES, labels=LABELS)
  whole = path.read_bytes()
  start = whole.rindex(b"PK\x01\x02")
  path.write_bytes(whole[:start] + whole[start:].replace(b"lab", b"lob"))
  refused("cannot be read", load_dataset, path)
  # The length of the first entry's comment, which then hides the second.
  first = bytearray(whole)
  place = whole.index(b"PK\x01\x02") + 32
  first[place] = whole.index(b"PK\x05\x06") - start
  path.write_bytes(first)
  refused("cannot be read", load_dataset, path)
