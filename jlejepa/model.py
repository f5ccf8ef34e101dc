"""Encoder, projector and predictor as one model of views.

Axis letters: `B` batch, `V` views, `N` samples, `D` features, `K` projector
width.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jlejepa.encoders import Encoder, Projector
from jlejepa.views import Views


class Model(NamedTuple):
  """The networks of a run.

  Attributes:
    encoder: images to features.
    projector: features to the `[N, K]` that the loss sees.
    predictor: projections to predictions `[N, K]` of the centre, or None: the
      paper has none.
  """

  encoder: Encoder
  projector: Projector
  predictor: Projector | None = None


class Projected(NamedTuple):
  """What a model makes of the views of a batch.

  Attributes:
    projections: `[V, B, K]`, the global views first.
    predictions: `[V, B, K]`, or None without a predictor.
    embedding: `[B, Vg, D]`, of the global views, before the projector.
    batch_stats: the running statistics, updated.
  """

  projections: jax.Array
  predictions: jax.Array | None
  embedding: jax.Array
  batch_stats: Any


def init_model(
  model: Model, key: jax.Array, images: jax.Array
) -> tuple[dict[str, Any], dict[str, Any]]:
  """Draws the first weights.

  Args:
    model: the networks.
    key: consumed.
    images: `[N, S, S, C]`, two global views or more, as examples.

  Returns:
    `(params, batch_stats)`, each with an entry for every network.
  """
  encoder_key, projector_key, predictor_key = jax.random.split(key, 3)
  variables = {"encoder": model.encoder.init(encoder_key, images)}
  features, _ = model.encoder.apply(variables["encoder"], images)
  variables["projector"] = model.projector.init(
    projector_key, features.embedding
  )
  if model.predictor is not None:
    z, _ = model.projector.apply(variables["projector"], features.embedding)
    variables["predictor"] = model.predictor.init(predictor_key, z)
  return (
    {name: v["params"] for name, v in variables.items()},
    {name: v["batch_stats"] for name, v in variables.items()},
  )


def network_variables(params: Any, batch_stats: Any, name: str) -> Any:
  """Returns one network's variables as its `apply` takes them."""
  return {"params": params[name], "batch_stats": batch_stats[name]}


def project(
  model: Model, params: Any, batch_stats: Any, views: Views, key: jax.Array
) -> Projected:
  """Runs a batch of views through the model, in training mode.

  The views of one resolution are one batch of the encoder, and all views are
  one batch of the projector: so are the statistics of their BatchNorm. The
  running statistics of the encoder follow the global views alone, for whole
  images are nearer to those than to the small crops.

  Args:
    model: the networks.
    params: by network.
    batch_stats: by network.
    views: with a leading `B`: `[B, Vg, S, S, C]` and `[B, Vl, s, s, C]`.
    key: for drop path; consumed.
  """
  global_key, local_key = jax.random.split(key)
  variables = lambda name: network_variables(params, batch_stats, name)
  apply = lambda x, key: model.encoder.apply(
    variables("encoder"), _merge(x), train=True, key=key
  )
  batch, num_global = views.global_.shape[:2]
  features, encoder_stats = apply(views.global_, global_key)
  embedding = _split(features.embedding, batch)
  parts = [embedding]
  if views.local.shape[1]:
    parts.append(_split(apply(views.local, local_key)[0].embedding, batch))
  # [B, V, ...] merged with B outermost: an array that is sharded over its
  # batch stays so.
  everything = _merge(jnp.concatenate(parts, axis=1))
  z, projector_stats = model.projector.apply(
    variables("projector"), everything, train=True
  )
  stats = {"encoder": encoder_stats, "projector": projector_stats}
  predictions = None
  if model.predictor is not None:
    p, stats["predictor"] = model.predictor.apply(
      variables("predictor"), z, train=True
    )
    predictions = _views_first(p, batch)
  return Projected(
    projections=_views_first(z, batch),
    predictions=predictions,
    embedding=embedding[:, :num_global],
    batch_stats=stats,
  )


def _merge(x: jax.Array) -> jax.Array:
  return x.reshape(-1, *x.shape[2:])


def _split(x: jax.Array, batch: int) -> jax.Array:
  return x.reshape(batch, -1, *x.shape[1:])


def _views_first(x: jax.Array, batch: int) -> jax.Array:
  return jnp.swapaxes(_split(x, batch), 0, 1)
