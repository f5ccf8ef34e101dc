"""The entry check that every statistic shares."""

import jax
import jax.numpy as jnp


def as_samples(x: jax.Array, minimum: int = 2) -> jax.Array:
  """Checks samples `[..., N, M]` and returns them in float32.

  Statistics are float32 whatever comes in: bfloat16 moves SIGReg by half a
  percent, and float64 is not a TPU type. Gradients return in the dtype of `x`.

  Args:
    x: `[..., N, M]`, floating point; `N` samples of `M` variables.
    minimum: the fewest samples that the statistic is defined for.

  Raises:
    ValueError: if `x` has fewer than two axes, too few samples, no variables,
      or is not floating point.
  """
  x = jnp.asarray(x)
  if x.ndim < 2:
    raise ValueError(
      f"samples need shape [..., N, M], got {list(x.shape)}; "
      "give one variable as x[:, None]"
    )
  if not jnp.issubdtype(x.dtype, jnp.floating):
    raise ValueError(f"samples must be floating point, got {x.dtype}; cast")
  if x.shape[-2] < minimum or x.shape[-1] < 1:
    raise ValueError(
      f"need at least {minimum} samples (axis -2) of at least 1 variable "
      f"(axis -1), got shape {list(x.shape)}"
    )
  return x.astype(jnp.float32)
