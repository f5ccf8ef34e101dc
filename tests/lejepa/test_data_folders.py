"""Folders of images, good and bad, and images decoded when needed."""

import io
import os
import shutil

import numpy as np
import pytest
from PIL import Image

from jlejepa.data import describe, iterate, load_dataset, reading
from jlejepa.runtime.errors import UserError

RNG = np.random.default_rng(0)


def picture(height, width, shift=0):
  """A slope, uint8 `[H, W, 3]`; another one for every shift."""
  y, x, channel = np.indices((height, width, 3))
  return (shift + 5 * y + 3 * x + 40 * channel).astype(np.uint8)


def write(path, pixels, **options):
  path.parent.mkdir(parents=True, exist_ok=True)
  Image.fromarray(pixels).save(path, **options)
  return path


def animals(folder, classes=("cat", "dog"), each=5, size=(6, 8)):
  for k, name in enumerate(classes):
    for i in range(each):
      write(folder / name / f"{i}.png", picture(*size, shift=10 * k + i))
  return folder


@pytest.fixture
def lazy(monkeypatch):
  """Decodes every folder when needed, as one of many images is."""
  monkeypatch.setattr(reading, "EAGER_PIXELS", 0)


# What is in a folder.


def test_labels_are_the_first_subfolders_in_order(tmp_path):
  animals(tmp_path, ("dog", "cat"))
  write(tmp_path / "cat" / "kittens" / "z.PNG", picture(6, 8, 99))
  write(tmp_path / ".hidden" / "no.png", picture(6, 8))
  write(tmp_path / "cat" / ".hidden.png", picture(6, 8))
  (tmp_path / "cat" / "notes.txt").write_text("no image")
  data = load_dataset(tmp_path, holdout=0)
  assert data.class_names == ("cat", "dog")
  assert data.labels.tolist() == [0] * 6 + [1] * 5
  np.testing.assert_array_equal(data.images[5], picture(6, 8, 99))
  np.testing.assert_array_equal(data.images[7], picture(6, 8, 1))
  assert describe(data) == f"{tmp_path}: 11 images of 6x8x3, 2 classes"


def test_some_of_each_class_are_held_out_and_stay_so(tmp_path):
  animals(tmp_path, each=10)
  train, test = load_dataset(tmp_path), load_dataset(tmp_path, "test")
  assert np.bincount(train.labels).tolist() == [8, 8]
  assert np.bincount(test.labels).tolist() == [2, 2]
  both = np.concatenate([train.images, test.images]).tolist()
  whole = load_dataset(tmp_path, holdout=0).images.tolist()
  assert sorted(both) == sorted(whole)
  # A copy elsewhere with a file more in one class: the other is split alike.
  copy = shutil.copytree(tmp_path, tmp_path / "copy" / "of")
  write(copy / "cat" / "new.png", picture(6, 8, 50))
  again = load_dataset(copy, "test")
  np.testing.assert_array_equal(
    again.images[again.labels == 1], test.images[test.labels == 1]
  )


def test_without_labels_everything_is_for_training(tmp_path, refused):
  animals(tmp_path, ["all"])
  assert load_dataset(tmp_path).labels is None
  animals(tmp_path)
  write(tmp_path / "top.png", picture(6, 8))
  data = load_dataset(tmp_path)
  assert data.labels is None and len(data.images) == 16
  refused(
    "no labels: there is nothing to test on", load_dataset, tmp_path, "test"
  )


@pytest.mark.parametrize("part", ["test", "val"])
def test_a_folder_keeps_its_own_splits(tmp_path, part, refused):
  animals(tmp_path / "train", ("ant", "bee", "cat"))
  animals(tmp_path / part, ("bee", "cat"), each=2)
  assert len(load_dataset(tmp_path).images) == 15
  test = load_dataset(tmp_path, "test")
  assert test.labels.tolist() == [1, 1, 2, 2]
  assert test.class_names == ("ant", "bee", "cat")
  assert len(load_dataset(tmp_path, part).images) == 4
  refused("no split 'tset'", load_dataset, tmp_path, "tset")
  write(tmp_path / part / "yak" / "0.png", picture(6, 8))
  refused(
    "'yak', which is no class of the training", load_dataset, tmp_path, "test"
  )


def test_images_without_a_class_beside_labelled_training_images(
  tmp_path, refused
):
  animals(tmp_path / "train")
  for i in range(3):
    write(tmp_path / "test" / f"{i}.png", picture(6, 8, i))
  refused(
    "test: 0.png is in no sub-folder of a class", load_dataset, tmp_path, "test"
  )
  # Training itself is possible, with the labels of its own split.
  assert load_dataset(tmp_path).class_names == ("cat", "dog")


def test_classes_of_the_test_images_alone_are_no_labels(tmp_path):
  for i in range(3):
    write(tmp_path / "train" / f"{i}.png", picture(6, 8, i))
  animals(tmp_path / "test")
  assert load_dataset(tmp_path).labels is None
  test = load_dataset(tmp_path, "test")
  assert test.labels is None and len(test.images) == 10


def test_a_training_folder_alone_is_split(tmp_path):
  animals(tmp_path / "train")
  assert len(load_dataset(tmp_path).images) == 8
  assert load_dataset(tmp_path, "test").labels.tolist() == [0, 1]


def test_links_are_followed_but_not_in_circles(tmp_path):
  real = animals(tmp_path / "real")
  data = tmp_path / "data"
  data.mkdir()
  (data / "a").symlink_to(real / "cat")
  (data / "b").symlink_to(real / "dog")
  (real / "dog" / "up").symlink_to(data)
  (real / "cat" / "itself.png").symlink_to("itself.png")
  found = load_dataset(data, holdout=0)
  assert len(found.images) == 10 and found.class_names == ("a", "b")
  (left_out,) = found.left_out
  assert left_out.startswith("a/itself.png: ")


# Bad files.


def test_bad_files_are_counted_named_and_left_out(tmp_path):
  animals(tmp_path, each=6)
  cat = tmp_path / "cat"
  whole = io.BytesIO()
  Image.fromarray(RNG.integers(0, 256, (6, 8, 3), np.uint8)).save(whole, "JPEG")
  (cat / "0.png").write_bytes(b"")
  (cat / "1.png").write_text("no image at all")
  (cat / "cut.jpg").write_bytes(whole.getvalue()[:-40])
  (cat / "gone.png").symlink_to("nowhere")
  os.mkfifo(cat / "pipe.png")
  data = load_dataset(tmp_path, holdout=0)
  assert data.labels.tolist() == [0] * 4 + [1] * 6
  np.testing.assert_array_equal(data.images[0], picture(6, 8, 2))
  names = [text.split(": ") for text in data.left_out]
  assert [name for name, _ in names] == [
    f"cat/{name}"
    for name in ("0.png", "1.png", "cut.jpg", "gone.png", "pipe.png")
  ]
  assert names[1][1] == "no image" and "truncated" in names[2][1]
  assert "5 left out (cat/0.png: no image; cat/1.png" in describe(data)
  assert "; 2 more)" in describe(data)


def test_too_many_bad_files_are_refused(tmp_path, refused):
  animals(tmp_path, each=2)
  for name in ("cat/0", "cat/1", "dog/0"):
    (tmp_path / f"{name}.png").write_text("bad")
  refused(
    "3 of 4 images cannot be read.*cat/0.png", load_dataset, tmp_path, holdout=0
  )


@pytest.mark.parametrize("lazily", [False, True])
def test_few_images_are_refused(tmp_path, lazily, monkeypatch, refused):
  if lazily:
    monkeypatch.setattr(reading, "EAGER_PIXELS", 0)
  refused("no images .*tfds:NAME", load_dataset, tmp_path)
  write(tmp_path / "0.png", picture(6, 8))
  refused("one image", load_dataset, tmp_path)


def test_unequal_sizes_need_a_size(tmp_path, refused):
  animals(tmp_path, each=2)
  write(tmp_path / "dog" / "1.png", picture(7, 9))
  refused(
    "cat/0.png is 8x6, dog/1.png is 9x7: give a size", load_dataset, tmp_path
  )
  data = load_dataset(tmp_path, size=4, holdout=0)
  assert data.images.shape == (4, 4, 4, 3)


def test_a_folder_that_cannot_be_listed(tmp_path, monkeypatch, refused):
  animals(tmp_path)
  scandir = os.scandir

  def denied(path):
    if str(path).endswith("dog"):
      raise PermissionError(13, "Permission denied")
    return scandir(path)

  monkeypatch.setattr(os, "scandir", denied)
  refused("dog cannot be read: Permission denied", load_dataset, tmp_path)


def test_a_decompression_bomb_is_left_out(tmp_path, monkeypatch):
  animals(tmp_path)
  write(tmp_path / "cat" / "bomb.png", np.zeros((60, 60, 3), np.uint8))
  monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
  data = load_dataset(tmp_path, holdout=0)
  assert data.left_out == ("cat/bomb.png: too many pixels, PIL refuses it",)


# Decoded when needed.


@pytest.mark.parametrize("max_bytes", [1, 1000, 2**20])
def test_lazy_images_are_the_eager_ones(tmp_path, lazy, monkeypatch, max_bytes):
  animals(tmp_path)
  images = load_dataset(tmp_path, max_bytes=max_bytes).images
  monkeypatch.setattr(reading, "EAGER_PIXELS", 2**20)
  eager = load_dataset(tmp_path).images
  assert isinstance(eager, np.ndarray) and not isinstance(images, np.ndarray)
  assert len(images) == 8
  assert images.shape == eager.shape and images.dtype == eager.dtype
  for index in (
    3, -1, slice(1, 7, 2), [5, 5, 0], np.array([[1, 2], [3, 4]]),
    np.arange(8) % 2 == 0, np.array([], int),
  ):  # fmt: skip
    for _ in range(2):
      np.testing.assert_array_equal(images[index], eager[index])
  with pytest.raises(IndexError):
    images[[8]]


def test_what_fits_is_decoded_once(tmp_path, lazy):
  animals(tmp_path)
  images = load_dataset(tmp_path, holdout=0, max_bytes=3 * 6 * 8 * 3).images
  before = images[:].copy()
  images[:][...] = 0  # a caller's copy
  shutil.rmtree(tmp_path / "cat")
  np.testing.assert_array_equal(images[:3], before[:3])
  # The fourth is gone, and so is its whole class but for what is kept.
  np.testing.assert_array_equal(images[3], before[0])


def test_images_above_max_bytes_are_not_kept(tmp_path):
  animals(tmp_path)
  data = load_dataset(tmp_path, max_bytes=6 * 8 * 3 * 4)
  assert not isinstance(data.images, np.ndarray)
  assert "decoded when needed" in describe(data)


def test_a_damaged_image_is_replaced_by_one_of_its_class(
  tmp_path, lazy, capsys
):
  animals(tmp_path)
  data = load_dataset(tmp_path, holdout=0)
  (tmp_path / "cat" / "4.png").write_text("damaged later")
  images = data.images
  for _ in range(2):
    # The next one would be a dog.
    np.testing.assert_array_equal(images[[4, 0, 5]], images[[0, 0, 5]])
  assert capsys.readouterr().err.count("cat/4.png") == 1
  assert list(images.failed) == [4]


def test_a_disk_that_is_gone_ends_the_run(tmp_path, lazy, capsys):
  animals(tmp_path, ["all"], each=30)
  data = load_dataset(tmp_path, holdout=0, max_bytes=1)
  shutil.rmtree(tmp_path)
  # More than half, and however many more the other threads had met by then.
  wanted = r"(1[6-9]|2\d|30) of 30 images cannot"
  with pytest.raises(UserError, match=wanted) as error:
    next(iterate(data, 30, seed=0))
  assert "\n" not in str(error.value)
  assert len(capsys.readouterr().err.splitlines()) == 10


def test_a_class_without_a_readable_image_ends_the_run(tmp_path, lazy):
  animals(tmp_path)
  animals(tmp_path, ["yak"], each=2)
  images = load_dataset(tmp_path, holdout=0).images
  shutil.rmtree(tmp_path / "yak")
  with pytest.raises(UserError, match="every image like yak/1"):
    images[[10]]


def test_a_cut_file_is_found_without_decoding_it_all(tmp_path, lazy):
  animals(tmp_path)
  noise = RNG.integers(0, 256, (6, 8, 3), np.uint8)
  for suffix in ("jpg", "png"):
    path = write(tmp_path / "cat" / f"cut.{suffix}", noise)
    path.write_bytes(path.read_bytes()[:-30])
    path = write(tmp_path / "cat" / f"more.{suffix}", noise)
    path.write_bytes(path.read_bytes() + b"\0" * 5000)
  data = load_dataset(tmp_path, holdout=0)
  assert [text.split(":")[0] for text in data.left_out] == [
    "cat/cut.jpg", "cat/cut.png",
  ]  # fmt: skip
  assert len(data.images) == 12
