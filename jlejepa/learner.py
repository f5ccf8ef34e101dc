"""One update of LeJEPA, compiled once."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import struct

from jlejepa.averaging import ema_update
from jlejepa.model import Model, init_model, project
from jlejepa.objective import lejepa_loss, mean_global
from jlejepa.runtime.nonfinite import keep_finite
from jlejepa.views import Views

MakeViews = Callable[[jax.Array, jax.Array], Views]


@struct.dataclass
class TrainState:
  """Everything that an update changes.

  Attributes:
    params: the weights of `encoder`, `projector`, perhaps `predictor`, and of
      the online `probe`.
    batch_stats: running statistics of the networks.
    average: the moving average of encoder and projector; None without one.
    opt_state: the optimiser's.
    step: int32 `[]`, updates made, skipped ones included.
    skipped: int32 `[]`, updates in a row skipped for a non-finite gradient.
    skipped_total: int32 `[]`, all updates skipped so far.
  """

  params: Any
  batch_stats: Any
  average: Any
  opt_state: optax.OptState
  step: jax.Array
  skipped: jax.Array
  skipped_total: jax.Array


class LossOptions(NamedTuple):
  """Keyword arguments of `lejepa_loss`, and what goes with them.

  Attributes:
    lam: the trade-off, for the batch size in use.
    num_slices, t_max, num_points, test, sampler: as in `lejepa_loss`.
    average: decay of an averaged copy of the weights, which then sees the
      global views and makes the centre; 0 keeps none (the paper's default).
    supervised: train the encoder by the probe's loss alone: a ceiling for what
      the same network learns from the same views.
  """

  lam: float
  num_slices: int
  t_max: float
  num_points: int
  test: Callable | None
  sampler: Callable
  average: float
  supervised: bool = False


def init_state(
  key: jax.Array,
  model: Model,
  optimizer: optax.GradientTransformation,
  images: jax.Array,
  *,
  num_classes: int,
  average: float = 0.0,
) -> TrainState:
  """Makes the first state.

  Args:
    key: consumed.
    model: the networks.
    optimizer: its optimiser.
    images: `[N, S, S, C]`, global views as examples.
    num_classes: of the online probe; 0 for data without labels.
    average: as in `LossOptions`.
  """
  params, batch_stats = init_model(model, key, images)
  averaged = {name: params[name] for name in ("encoder", "projector")}
  if num_classes:
    width = jax.eval_shape(
      lambda x: (
        model.encoder.apply(
          {"params": params["encoder"], "batch_stats": batch_stats["encoder"]},
          x,
        )[0].embedding
      ),
      images,
    ).shape[-1]
    params["probe"] = {
      "kernel": jnp.zeros((width, num_classes)),
      "bias": jnp.zeros(num_classes),
    }
  return TrainState(
    params=params,
    batch_stats=batch_stats,
    # A copy: donated buffers must not be shared with `params`.
    average=jax.tree.map(jnp.copy, averaged) if average else None,
    opt_state=optimizer.init(params),
    step=jnp.zeros((), jnp.int32),
    skipped=jnp.zeros((), jnp.int32),
    skipped_total=jnp.zeros((), jnp.int32),
  )


def probe_logits(params: Any, embedding: jax.Array) -> jax.Array:
  """Reads classes off embeddings `[..., D]`, standardised one by one."""
  x = jax.nn.standardize(embedding.astype(jnp.float32), axis=-1)
  return x @ params["kernel"] + params["bias"]


def probe_loss(
  params: Any, embedding: jax.Array, labels: jax.Array
) -> tuple[jax.Array, jax.Array]:
  """Computes the online probe's loss and accuracy.

  Every global view carries the label of its image. Images with a negative
  label do not count.

  Args:
    params: the probe's.
    embedding: `[B, Vg, D]`.
    labels: int `[B]`.
  """
  logits = probe_logits(params, embedding)
  labels = jnp.broadcast_to(labels[:, None], logits.shape[:-1])
  known = (labels >= 0).astype(jnp.float32)
  count = jnp.maximum(known.sum(), 1)
  loss = optax.softmax_cross_entropy_with_integer_labels(
    logits, jnp.maximum(labels, 0)
  )
  right = (jnp.argmax(logits, axis=-1) == labels).astype(jnp.float32)
  return (known * loss).sum() / count, (known * right).sum() / count


def make_train_step(
  model: Model,
  optimizer: optax.GradientTransformation,
  make_views: MakeViews,
  options: LossOptions,
) -> Callable[..., tuple[TrainState, dict[str, jax.Array]]]:
  """Makes `step(state, images, labels, key) -> (state, metrics)`.

  To be jitted, on a batch that may be sharded: every mean is over the global
  batch. `key` is the run's; the update's own is derived from it and the
  counter, so that a resumed run continues the same stream.

  Args:
    model: the networks.
    optimizer: for `TrainState.params`.
    make_views: `(key, image) -> Views` of one image.
    options: of the loss.

  Returns:
    The step. It takes images `[B, H, W, C]` and int labels `[B]` or None, and
    returns float32 scalar metrics; `grad_norm` is taken before clipping.
  """
  loss_kwargs = options._asdict()
  decay = loss_kwargs.pop("average")
  supervised = loss_kwargs.pop("supervised")

  def loss_fn(params, state, views, labels, path_key, slice_key):
    seen = project(model, params, state.batch_stats, views, path_key)
    centre = None
    if decay:
      stats = state.batch_stats
      only_global = views._replace(local=views.local[:, :0])
      teacher = project(
        model._replace(predictor=None),
        state.average,
        stats,
        only_global,
        path_key,
      )
      centre = jax.lax.stop_gradient(
        mean_global(teacher.projections, views.global_.shape[1])
      )
    loss, metrics = lejepa_loss(
      seen.projections,
      slice_key,
      num_global=views.global_.shape[1],
      predictions=seen.predictions,
      centre=centre,
      **loss_kwargs,
    )
    metrics |= {"loss": loss}
    total = 0.0 if supervised else loss
    if "probe" in params:
      x = (
        seen.embedding if supervised else jax.lax.stop_gradient(seen.embedding)
      )
      probe, accuracy = probe_loss(params["probe"], x, labels)
      metrics |= {"probe_loss": probe, "probe_accuracy": accuracy}
      total += probe
    return total, (metrics, seen.batch_stats)

  def step(state: TrainState, images, labels, key):
    view_key, path_key, slice_key = jax.random.split(
      jax.random.fold_in(key, state.step), 3
    )
    keys = jax.random.split(view_key, len(images))
    views = jax.vmap(make_views)(keys, images)
    grads, (metrics, batch_stats) = jax.grad(loss_fn, has_aux=True)(
      state.params, state, views, labels, path_key, slice_key
    )
    norm = optax.global_norm(grads)
    updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
    finite = jnp.isfinite(norm) & jnp.isfinite(metrics["loss"])
    params = keep_finite(
      finite, optax.apply_updates(state.params, updates), state.params
    )
    average = state.average
    if decay:
      latest = {name: params[name] for name in average}
      average = ema_update(average, latest, decay, state.step)
    new = TrainState(
      params=params,
      batch_stats=keep_finite(finite, batch_stats, state.batch_stats),
      average=average,
      opt_state=keep_finite(finite, opt_state, state.opt_state),
      step=state.step + 1,
      skipped=jnp.where(finite, 0, state.skipped + 1),
      skipped_total=jnp.where(
        finite, state.skipped_total, state.skipped_total + 1
      ),
    )
    return new, metrics | {"grad_norm": norm}

  return step
