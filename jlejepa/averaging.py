"""A moving average of the weights."""

from typing import Any

import jax
import jax.numpy as jnp


def ema_update(
  average: Any, params: Any, decay: float, count: jax.Array | int
) -> Any:
  """Moves an average of the weights towards the weights of now.

  average' = d * average + (1 - d) * params, with
  d = min(decay, (1 + count) / (10 + count))

  The second term lets go of the random initialisation quickly: an average
  begun at `params` follows them closely for the first few hundred updates.

  Args:
    average: the tree so far; begin with the parameters themselves.
    params: the tree to follow.
    decay: 0 (copies the parameters) to 1 (`d` is the second term).
    count: updates made before this one.

  Returns:
    The new average.
  """
  keep = jnp.minimum(decay, (1 + count) / (10 + count))
  mix = lambda old, new: (new + keep * (old - new)).astype(old.dtype)
  return jax.tree.map(mix, average, params)
