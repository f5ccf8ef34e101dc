"""Make an update again that was not finite, and stop where nan begins."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp


def make_again(
  step: Callable[..., tuple[Any, Mapping[str, jax.Array]]],
  inputs: Mapping[str, Any],
) -> dict[str, float]:
  """Makes an update under `jax_debug_nans`, from inputs that were kept.

  Args:
    step: what the run had compiled: `(**inputs) -> (state, metrics)`.
    inputs: from `nonfinite.load_bad_update`.

  Returns:
    The metrics of the update, where it is finite after all.

  Raises:
    FloatingPointError: at the operation that gives nan.
  """
  with jax.debug_nans(True):
    _, metrics = jax.jit(step)(**jax.tree.map(jnp.asarray, dict(inputs)))
  return {name: float(value) for name, value in metrics.items()}


def describe_update(metrics: Mapping[str, float]) -> str:
  """Returns one line for a person: the update is finite, and its metrics."""
  words = [f"{name} {value:.4g}" for name, value in metrics.items()]
  return f"the update is finite: {', '.join(words)}"
