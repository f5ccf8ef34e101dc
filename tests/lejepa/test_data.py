"""Arrays, archives, digits, and the order in which examples come."""

import threading
import time
import zipfile

import numpy as np
import pytest
from sklearn.datasets import load_digits

from jlejepa.data import (
  Dataset,
  batch_indices,
  describe,
  from_arrays,
  iterate,
  load_dataset,
)
from jlejepa.runtime.errors import UserError

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (10, 4, 5, 3), np.uint8)
LABELS = np.arange(10) % 2


def refused(match, call, *args, **kwargs):
  """Expects a `UserError` of one line."""
  with pytest.raises(UserError, match=match) as caught:
    call(*args, **kwargs)
  assert "\n" not in str(caught.value)
  assert len(str(caught.value)) < 500


# Order.


def epoch(n, batch, seed, number):
  steps = n // batch
  return [
    batch_indices(n, batch, seed, number * steps + i) for i in range(steps)
  ]


@pytest.mark.parametrize("n, batch", [(2, 2), (10, 2), (10, 4), (97, 32)])
def test_an_epoch_has_distinct_examples_and_batches_do_not_straddle(n, batch):
  orders = []
  for number in range(4):
    batches = epoch(n, batch, 3, number)
    assert all(found.shape == (batch,) for found in batches)
    order = np.concatenate(batches)
    assert len(set(order)) == len(order) == n // batch * batch
    assert order.min() >= 0 and order.max() < n
    orders.append(tuple(order))
  if n > 2:
    assert len(set(orders)) == 4


def test_what_an_epoch_leaves_out_changes():
  missing = [
    (set(range(11)) - set(np.concatenate(epoch(11, 5, 0, e)))).pop()
    for e in range(60)
  ]
  assert len(set(missing)) > 8


def test_order_is_a_function_of_seed_and_step():
  first = batch_indices(100, 7, 5, 33).copy()
  for step in range(200):
    batch_indices(100, 7, 5, step)
  np.testing.assert_array_equal(batch_indices(100, 7, 5, 33), first)
  # Neighbouring seeds must not share permutations, at any shift of epochs.
  a = {tuple(np.concatenate(epoch(100, 50, 0, e))) for e in range(20)}
  b = {tuple(np.concatenate(epoch(100, 50, 1, e))) for e in range(20)}
  assert len(a) == len(b) == 20 and not a & b


def test_permutations_are_uniform():
  counts = {}
  for number in range(6000):
    key = tuple(batch_indices(3, 3, 0, number))
    counts[key] = counts.get(key, 0) + 1
  # Six permutations, standard deviation 29.
  assert len(counts) == 6
  assert all(abs(count - 1000) < 130 for count in counts.values())


def test_the_order_cannot_be_spoilt():
  with pytest.raises(ValueError, match="read-only"):
    batch_indices(10, 4, 0, 0)[0] = 1


@pytest.mark.parametrize(
  "change, match",
  [
    (dict(batch_size=1), "batch_size=1.*at least 2"),
    (dict(batch_size=11), "more than the 10"),
    (dict(batch_size=0), "batch_size"),
    (dict(batch_size=2.0), "batch_size"),
    (dict(batch_size=True), "batch_size"),
    (dict(seed=-1), "seed"),
    (dict(step=-1), "step"),
  ],
)
def test_bad_orders_are_refused(change, match):
  arguments = dict(num_examples=10, batch_size=2, seed=0, step=0) | change
  refused(match, batch_indices, **arguments)


# Batches.


class Slow:
  """Images that are not in memory; counts the threads that read them."""

  def __init__(self, images, fail_at=None):
    self.images, self.fail_at = images, fail_at
    self.shape, self.dtype, self.reads = images.shape, images.dtype, 0
    self.threads = set()

  def __len__(self):
    return len(self.images)

  def __getitem__(self, index):
    self.threads.add(threading.get_ident())
    self.reads += 1
    if self.reads == self.fail_at:
      raise UserError("the disk is gone")
    return self.images[index]


def take(batches, count):
  return [next(batches) for _ in range(count)]


@pytest.mark.parametrize("wrap", [lambda x: x, Slow])
def test_a_resumed_run_sees_what_an_uninterrupted_one_sees(wrap):
  data = Dataset(wrap(IMAGES), LABELS)
  whole = take(iterate(data, 3, seed=2), 9)
  for step, images, labels in whole:
    index = batch_indices(10, 3, 2, step)
    np.testing.assert_array_equal(images, IMAGES[index])
    np.testing.assert_array_equal(labels, LABELS[index])
  resumed = take(iterate(data, 3, seed=2, start_step=4), 5)
  assert [step for step, _, _ in resumed] == [4, 5, 6, 7, 8]
  for a, b in zip(whole[4:], resumed, strict=True):
    np.testing.assert_array_equal(a[1], b[1])
    np.testing.assert_array_equal(a[2], b[2])


def test_no_labels_stay_none():
  _, images, labels = next(iterate(Dataset(IMAGES), 2, seed=0))
  assert labels is None and images.shape == (2, 4, 5, 3)


def test_shards_make_up_the_batch():
  data = Dataset(IMAGES, LABELS)
  _, whole, _ = next(iterate(data, 6, seed=0, start_step=3))
  parts = [
    next(iterate(data, 6, seed=0, start_step=3, shard=(i, 3)))[1]
    for i in range(3)
  ]
  np.testing.assert_array_equal(np.concatenate(parts), whole)
  refused("4 equal parts", iterate, data, 6, seed=0, shard=(0, 4))
  refused("number 3", iterate, data, 6, seed=0, shard=(3, 3))


@pytest.mark.parametrize("wrap", [lambda x: x, Slow])
def test_bad_batches_are_refused_at_the_call(wrap):
  data = Dataset(wrap(IMAGES))
  refused("batch_size=1", iterate, data, 1, seed=0)
  refused("more than the 10", iterate, data, 11, seed=0)
  refused("step", iterate, data, 2, seed=0, start_step=-3)


def test_an_error_of_the_reader_reaches_the_consumer():
  batches = iterate(Dataset(Slow(IMAGES, fail_at=3)), 2, seed=0)
  take(batches, 2)
  refused("^the disk is gone$", next, batches)
  batches.close()


def test_reading_ahead_is_bounded_and_ends():
  slow = Slow(IMAGES)
  before = threading.active_count()
  batches = iterate(Dataset(slow), 2, seed=0)
  next(batches)
  for _ in range(50):
    time.sleep(0.01)
    assert slow.reads <= 4
  assert slow.threads and threading.get_ident() not in slow.threads
  batches.close()
  for _ in range(500):
    if threading.active_count() <= before:
      break
    time.sleep(0.01)
  assert threading.active_count() <= before
  with pytest.raises(StopIteration):
    next(batches)


# Arrays.


def test_bytes_are_taken_as_they_are():
  data = from_arrays(IMAGES, LABELS[:, None], ["cat", "dog"], "pets")
  assert data.images is IMAGES
  assert data.labels.dtype == np.int32
  np.testing.assert_array_equal(data.labels, LABELS)
  assert data.class_names == ("cat", "dog") and data.num_classes == 2
  text = describe(data)
  assert text == "pets: 10 images of 4x5x3, 2 classes"


def test_grey_images_get_a_channel():
  assert from_arrays(IMAGES[..., 0]).images.shape == (10, 4, 5, 1)


def test_float_images_become_bytes():
  images = IMAGES / 255
  np.testing.assert_array_equal(from_arrays(images).images, IMAGES)
  half = np.full((2, 2, 2, 1), 0.5, np.float16)
  np.testing.assert_array_equal(from_arrays(half).images, 128)


@pytest.mark.parametrize("shape", [(6, 3), (6, 50, 2)])
def test_vectors_and_series_stay_floats(shape):
  x = RNG.normal(size=shape) * 100
  data = from_arrays(x)
  assert data.images.dtype == np.float32
  np.testing.assert_allclose(data.images, x, rtol=1e-6)
  assert "examples of" in describe(data) and "no labels" in describe(data)


def test_unknown_labels():
  data = from_arrays(IMAGES, [0, -1] * 5)
  assert data.num_classes == 1
  assert "5 without a label" in describe(data)
  assert from_arrays(IMAGES, [-1] * 10).labels is None


ROWS = [np.zeros((4, 4, 3), np.uint8)] * 2 + [np.zeros((5, 4, 3), np.uint8)]
OBJECTS = np.empty(3, object)
OBJECTS[:] = ROWS


@pytest.mark.parametrize(
  "arguments, match",
  [
    ((IMAGES[:1],), "at least 2"),
    ((IMAGES[:0],), "at least 2"),
    ((IMAGES[:, :0],), "empty"),
    ((np.uint8(3),), "must be an array"),
    ((IMAGES.astype(np.int64),), "int64.*astype"),
    ((IMAGES > 3,), "bool"),
    ((IMAGES.astype(complex),), "complex"),
    ((IMAGES.astype(str),), "give uint8"),
    ((IMAGES[:, 0, 0],), r"\[N, H, W, C\]"),
    ((IMAGES.astype(float),), r"run from .* to 255: scale them to \[0, 1\]"),
    ((IMAGES / 255 - 0.5,), "scale them"),
    ((np.where(IMAGES > 9, np.nan, 0.0),), "not finite"),
    ((np.full((3, 2), np.inf),), "not finite"),
    ((np.zeros(7),), r"\[N, D\]"),
    ((IMAGES.transpose(0, 3, 1, 2).repeat(2, 3),), "channels first"),
    ((ROWS,), r"unequal size: number 0 is \[4, 4, 3\], number 2 is \[5, 4"),
    ((OBJECTS,), "unequal size"),
    (([{}, {}],), "objects"),
    ((IMAGES, LABELS[:9]), "one for each of the 10"),
    ((IMAGES, np.eye(10)), "one for each"),
    ((IMAGES, LABELS + 0.5), "integers"),
    ((IMAGES, list("abababcdef")), "integers"),
    ((IMAGES, LABELS - 3), "run from -3 to -2"),
    ((IMAGES, LABELS + 1, ["a", "b"]), "run from 1 to 2: give 0 to 1"),
    ((IMAGES, LABELS * 10**7), "run from 0 to 10000000"),
    ((IMAGES, LABELS.astype(np.uint64) * 2**63), "run from 0 to"),
  ],
)
def test_bad_arrays_are_refused(arguments, match):
  refused(match, from_arrays, *arguments)


# Digits.


def test_digits_are_the_bundled_ones_split_within_each_class():
  train, test = load_dataset("digits"), load_dataset("digits", "test")
  bunch = load_digits()
  assert train.images.shape[1:] == (8, 8, 1) and train.images.max() == 255
  assert len(train.images) + len(test.images) == 1797
  both = np.concatenate([train.images, test.images]).reshape(1797, 64)
  labels = np.concatenate([train.labels, test.labels])
  rows = {(*x, y) for x, y in zip(both.tolist(), labels.tolist(), strict=True)}
  expected = np.rint(bunch.data / 16 * 255).astype(int).tolist()
  assert rows == {
    (*x, y) for x, y in zip(expected, bunch.target.tolist(), strict=True)
  }
  share = np.bincount(test.labels) / np.bincount(bunch.target)
  np.testing.assert_allclose(share, 0.2, atol=0.003)
  again = load_dataset("digits", "test")
  np.testing.assert_array_equal(test.images, again.images)
  assert len(load_dataset("digits", holdout=0).images) == 1797
  assert train.class_names == tuple("0123456789")


@pytest.mark.parametrize(
  "arguments, options, match",
  [
    (("digits", "tset"), {}, "did you mean test"),
    (("digits", "test"), dict(holdout=0), "nothing to test on"),
    (("digits",), dict(holdout=1), "holdout"),
    (("digits",), dict(holdout=float("nan")), "holdout"),
    (("digits",), dict(size=-1), "size"),
    (("digits",), dict(max_bytes=0), "max_bytes"),
    (("",), {}, "no source"),
    ((3,), {}, "not a text"),
    (("nowhere.npz",), {}, "no such file"),
  ],
)
def test_bad_sources_are_refused(arguments, options, match):
  refused(match, load_dataset, *arguments, **options)


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
def test_an_archive_keeps_its_own_splits(tmp_path, form):
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


def test_arrays_without_labels(tmp_path):
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


def test_bad_archives_are_refused(tmp_path):
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
  tmp_path,
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
