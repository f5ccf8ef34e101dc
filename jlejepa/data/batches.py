"""Batches for training, read ahead where they come from a disk."""

from collections.abc import Callable, Iterator

import numpy as np

from jlejepa.data.dataset import Dataset
from jlejepa.data.order import batch_indices, check_batch
from jlejepa.runtime.errors import require

Batch = tuple[int, np.ndarray, np.ndarray | None]
READ_AHEAD = 2
# Grain wants an end.
LAST_STEP = 2**62


def iterate(
  dataset: Dataset,
  batch_size: int,
  *,
  seed: int,
  start_step: int = 0,
  shard: tuple[int, int] = (0, 1),
) -> Iterator[Batch]:
  """Yields the batches from a step on, without end.

  Images that are not in memory are read `READ_AHEAD` batches ahead by a thread;
  closing the iterator ends it.

  Args:
    dataset: what to learn from.
    batch_size: `B`, of all processes together.
    seed: as in `batch_indices`.
    start_step: 0, or where a resumed run stands.
    shard: `(index, count)`: this process reads part `index` of the `count`
      equal parts of each batch.

  Yields:
    `(step, images [B, ...], labels [B] or None)`.

  Raises:
    UserError: for a batch that does not fit the data or the parts, at the call;
      for images that can no longer be read, at their batch.
  """
  images, labels = dataset.images, dataset.labels
  check_batch(len(images), batch_size, seed, start_step)
  index, count = shard
  require(
    0 <= index < count and batch_size % count == 0,
    f"batch_size={batch_size} must split into {count} equal parts, of which"
    f" number {index} is to be read",
  )
  size = batch_size // count
  part = slice(index * size, (index + 1) * size)

  def load(step: int) -> Batch:
    chosen = batch_indices(len(images), batch_size, seed, step)[part]
    found = None if labels is None else labels[chosen]
    return step, images[chosen], found

  if isinstance(images, np.ndarray):
    return (load(step) for step in range(start_step, LAST_STEP))
  return _read_ahead(load, start_step)


def _read_ahead(load: Callable[[int], Batch], start: int) -> Iterator[Batch]:
  # Half a second to import, which images in memory need not pay.
  import grain

  def attempt(step: int) -> Batch | Exception:
    # Grain adds lines of its own to the text of an exception that it sees.
    try:
      return load(step)
    except Exception as error:
      return error

  steps = grain.MapDataset.range(start, LAST_STEP)
  options = grain.ReadOptions(num_threads=1, prefetch_buffer_size=READ_AHEAD)
  batches = iter(steps.map(attempt).to_iter_dataset(options))
  try:
    for batch in batches:
      if isinstance(batch, Exception):
        raise batch
      yield batch
  finally:
    batches.close()
