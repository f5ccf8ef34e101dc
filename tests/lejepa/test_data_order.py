"""The order in which examples come, and their batches."""

import threading
import time

import numpy as np
import pytest

from jlejepa.data import Dataset, batch_indices, iterate
from jlejepa.runtime.errors import UserError

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (10, 4, 5, 3), np.uint8)
LABELS = np.arange(10) % 2


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
def test_bad_orders_are_refused(change, match, refused):
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


def test_shards_make_up_the_batch(refused):
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
def test_bad_batches_are_refused_at_the_call(wrap, refused):
  data = Dataset(wrap(IMAGES))
  refused("batch_size=1", iterate, data, 1, seed=0)
  refused("more than the 10", iterate, data, 11, seed=0)
  refused("step", iterate, data, 2, seed=0, start_step=-3)


def test_an_error_of_the_reader_reaches_the_consumer(refused):
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
