"""Pixels as features: the baseline that every encoder must beat."""

from typing import Any

import jax
import numpy as np

_BATCH = 256


def raw_pixels(images: Any, *, largest: int = 32) -> np.ndarray:
  """Flattens images, shrunk if they are large; the numbers stay 0 to 255.

  A probe of all pixels of a photograph would not fit into memory.

  Args:
    images: `[N, H, W, C]`, read some at a time from anything with a length that
      an array of indices selects from; or `[N, ...]` of other shapes, which are
      flattened as they are.
    largest: the longer side is shrunk to it, averaging.

  Returns:
    float32 `[N, D]`.
  """
  parts = []
  for start in range(0, len(images), _BATCH):
    index = np.arange(start, min(start + _BATCH, len(images)))
    x = np.asarray(images[index], np.float32)
    if x.ndim == 4 and max(x.shape[1:3]) > largest:
      scale = largest / max(x.shape[1:3])
      sides = [max(1, round(scale * side)) for side in x.shape[1:3]]
      shape = (len(x), *sides, x.shape[3])
      x = np.asarray(jax.image.resize(x, shape, "linear"))
    parts.append(x.reshape(len(x), -1))
  return np.concatenate(parts)
