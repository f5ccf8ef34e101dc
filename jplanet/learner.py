"""One update of the world model, compiled once."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from flax import struct

from jlejepa.averaging import ema_update
from jlejepa.runtime.nonfinite import check_skipped, keep_finite
from jplanet.types import Array, Batch, Key, Params, WorldModel


@struct.dataclass
class TrainState:
  """Everything that an update changes.

  Attributes:
    params: the weights.
    average: their moving average, with which the agent acts; None when the
      agent acts with the latest weights.
    behaviour: what the episodes under way are collected with, where they are
      collected beside the updates: the acting weights before the updates.
      None where they are collected after them.
    opt_state: the optimiser's.
    updates: int32 `[]`, updates made, skipped ones included.
    skipped: int32 `[]`, updates in a row skipped for a non-finite gradient.
    skipped_total: int32 `[]`, all updates skipped so far.
  """

  params: Params
  average: Params | None
  behaviour: Params | None
  opt_state: optax.OptState
  updates: Array
  skipped: Array
  skipped_total: Array

  @property
  def acting_params(self) -> Params:
    return self.params if self.average is None else self.average

  @property
  def collecting_params(self) -> Params:
    return self.acting_params if self.behaviour is None else self.behaviour


def follow(state: TrainState) -> TrainState:
  """Lets the next episodes be collected with what the agent acts with now."""
  if state.behaviour is None:
    return state
  # A copy: donated buffers must not be shared.
  return state.replace(behaviour=jax.tree.map(jnp.copy, state.acting_params))


def check_gradients(state: TrainState) -> None:
  """Raises `NonFiniteError` if the gradients have stayed non-finite."""
  check_skipped(int(state.skipped), int(state.updates), "the episodes")


def init_state(
  key: Key,
  model: WorldModel,
  optimizer: optax.GradientTransformation,
  *,
  images: Array | None = None,
  ema: float = 0.0,
  overlap: bool = False,
) -> TrainState:
  """Makes the first state.

  Args:
    key: for the weights.
    model: the world model.
    optimizer: its optimiser.
    images: `[N, S, S, 3]`, examples for `model.init`.
    ema: as for `make_train_step`.
    overlap: episodes are collected beside the updates.
  """
  params = model.init(key, images)
  return TrainState(
    params=params,
    # A copy: donated buffers must not be shared with `params`.
    average=jax.tree.map(jnp.copy, params) if ema else None,
    behaviour=jax.tree.map(jnp.copy, params) if overlap else None,
    opt_state=optimizer.init(params),
    updates=jnp.zeros((), jnp.int32),
    skipped=jnp.zeros((), jnp.int32),
    skipped_total=jnp.zeros((), jnp.int32),
  )


def make_train_step(
  model: WorldModel,
  optimizer: optax.GradientTransformation,
  *,
  ema: float = 0.0,
) -> Callable[[TrainState, Batch, Key], tuple[TrainState, dict[str, Array]]]:
  """Makes `step(state, batch, key) -> (state, metrics)`, to be jitted.

  `key` is the run's: the update's own is derived from it and the counter, so
  that a resumed run continues the same stream. A gradient that is not finite
  leaves parameters and optimiser as they are and is counted.

  Args:
    model: the world model.
    optimizer: its optimiser.
    ema: decay of the averaged weights; 0 keeps none.

  Returns:
    The step. Metrics are scalars; `grad_norm` is taken before clipping.
  """

  def step(state: TrainState, batch: Batch, key: Key):
    key = jax.random.fold_in(key, state.updates)
    grads, metrics = jax.grad(model.loss, has_aux=True)(
      state.params, batch, key
    )
    norm = optax.global_norm(grads)
    updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    finite = jnp.isfinite(norm) & jnp.isfinite(metrics["loss"])
    params = keep_finite(finite, params, state.params)
    average = state.average
    if ema:
      average = ema_update(average, params, ema, state.updates)
    new = state.replace(
      params=params,
      average=average,
      opt_state=keep_finite(finite, opt_state, state.opt_state),
      updates=state.updates + 1,
      skipped=jnp.where(finite, 0, state.skipped + 1),
      skipped_total=jnp.where(
        finite, state.skipped_total, state.skipped_total + 1
      ),
    )
    return new, metrics | {"grad_norm": norm}

  return step
