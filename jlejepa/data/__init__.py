"""Examples to learn from: where they come from and in which order.

A `Dataset` holds uint8 images `[N, H, W, C]` in memory or on disk, or float
vectors or series. Nothing here needs TensorFlow, and nothing downloads.
"""

from jlejepa.data.batches import iterate
from jlejepa.data.dataset import Dataset, describe, from_arrays
from jlejepa.data.order import batch_indices
from jlejepa.data.sources import load_dataset

__all__ = [
  "Dataset",
  "batch_indices",
  "describe",
  "from_arrays",
  "iterate",
  "load_dataset",
]
