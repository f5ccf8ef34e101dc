"""How Gaussian the projections of a run are, free of slicing and bias."""

from typing import Any

import jax
import numpy as np

from jlejepa.exact import sigreg_exact
from jlejepa.slicing import sigreg_unbiased

# As many samples as a metric needs: both forms are means over batches.
SAMPLES = 4096


def batch_sigreg(
  projections: np.ndarray, batch: int, **options: Any
) -> dict[str, float]:
  """Computes SIGReg as evaluation metrics, for batches of the training's size.

  SIGReg grows with the number of samples of embeddings that are not Gaussian,
  so that only batches of one size can be compared, with each other and with
  the training's `sigreg` (which sees augmented views in training mode).

  Args:
    projections: `[N, K]`, in any order.
    batch: of the training; all `N` if there are fewer.
    options: `num_slices`, `t_max` and `num_points`, as in
      `jlejepa.sigreg_unbiased`.

  Returns:
    `unbiased`, the U-statistic on random slices, 0 on average for a Gaussian;
    `exact`, over all slices at once, 1.0594 for a Gaussian; `batch`, the size.
    Nothing for fewer than two samples.
  """
  size = min(batch, len(projections))
  if size < 2:
    return {}
  count = min(len(projections) // size, max(1, SAMPLES // size))
  # Shuffled, for a folder of images comes sorted by class.
  order = np.random.default_rng(0).permutation(len(projections))
  chosen = projections[order[: count * size]]
  batches = chosen.reshape(count, size, -1)
  unbiased = jax.jit(lambda z, key: sigreg_unbiased(z, key, **options))
  return {
    "unbiased": float(unbiased(batches, jax.random.key(0))),
    "exact": float(jax.jit(sigreg_exact)(batches)),
    "batch": size,
  }


def describe_sigreg(found: dict[str, float]) -> str:
  """Returns one line for a person."""
  return (
    f"SIGReg of the projection, batches of {found['batch']}: unbiased"
    f" {found['unbiased']:.2f} (a Gaussian's is 0), exact over all slices"
    f" {found['exact']:.2f} (1.06)"
  )
