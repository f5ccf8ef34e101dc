"""AdamW with warm-up and cosine, and a plain one for the online probe."""

from typing import Any

import jax
import optax


def make_optimizer(
  learning_rate: float,
  *,
  total_steps: int,
  warmup_steps: int = 0,
  final_scale: float = 1e-3,
  weight_decay: float = 0.05,
  decay_vectors: bool = True,
  clip_norm: float = 0.0,
  b1: float = 0.9,
  b2: float = 0.999,
  probe_learning_rate: float = 1e-3,
  probe_weight_decay: float = 1e-7,
) -> optax.GradientTransformation:
  """Makes the optimiser of `TrainState.params`.

  The step size rises linearly from a hundredth of `learning_rate`, then falls
  along a cosine to `final_scale` of it. Parameters under `probe` have an AdamW
  of their own with a constant step size, and their gradients are not part of
  the norm that is clipped.

  Args:
    learning_rate: the largest step size.
    total_steps: updates of the whole run.
    warmup_steps: how many of them the rise takes.
    final_scale: of `learning_rate`, at the end; the paper's is 1/1000.
    weight_decay: decoupled decay, a share of the step size per update.
    decay_vectors: whether biases and gains decay too, as in the official
      recipe; otherwise only arrays with two or more axes.
    clip_norm: the largest global norm of the model's gradient; 0: any.
    b1: decay of the first moment.
    b2: decay of the second moment.
    probe_learning_rate: of the online probe.
    probe_weight_decay: of the online probe.

  Raises:
    ValueError: if the warm-up is no shorter than the run.
  """
  if not 0 <= warmup_steps < total_steps:
    raise ValueError(
      f"the warm-up of {warmup_steps} steps must be shorter than the run of "
      f"{total_steps}"
    )
  schedule = make_schedule(
    learning_rate,
    total_steps=total_steps,
    warmup_steps=warmup_steps,
    final_scale=final_scale,
  )
  mask = None if decay_vectors else is_matrix
  adamw = optax.adamw(
    schedule, b1=b1, b2=b2, weight_decay=weight_decay, mask=mask
  )
  clip = optax.clip_by_global_norm(clip_norm) if clip_norm else optax.identity()
  probe = optax.adamw(probe_learning_rate, weight_decay=probe_weight_decay)
  return optax.multi_transform(
    {"model": optax.chain(clip, adamw), "probe": probe}, _labels
  )


def make_schedule(
  learning_rate: float,
  *,
  total_steps: int,
  warmup_steps: int,
  final_scale: float,
) -> optax.Schedule:
  """Returns the step size by step: see `make_optimizer`."""
  return optax.warmup_cosine_decay_schedule(
    init_value=0.01 * learning_rate if warmup_steps else learning_rate,
    peak_value=learning_rate,
    warmup_steps=warmup_steps,
    decay_steps=total_steps,
    end_value=final_scale * learning_rate,
  )


def _labels(params: dict[str, Any]) -> dict[str, Any]:
  # A label stands for the whole tree below it.
  return {name: "probe" if name == "probe" else "model" for name in params}


def is_matrix(params: Any) -> Any:
  """Marks the arrays that weight decay is for: those with two axes or more."""
  return jax.tree.map(lambda x: x.ndim >= 2, params)
