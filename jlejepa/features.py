"""Frozen features of clean images, for probes and pictures."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jlejepa.model import Model, network_variables

CleanView = Callable[[jax.Array], jax.Array]


def make_extract(model: Model, clean_view: CleanView) -> Callable[..., Any]:
  """Makes `f(params, batch_stats, images [N, ...]) -> features`, to be jitted.

  Args:
    model: the networks, run in evaluation mode.
    clean_view: one image to what the encoder takes, without augmentation.

  Returns:
    The function. Its features are float32: `embedding` `[N, D]`, `last_two`
    `[N, D + D2]` (the embeddings of the last two layers joined: what linear
    probes of ViTs read), `projection` `[N, K]` (what SIGReg shapes).
  """

  def extract(params, batch_stats, images):
    variables = lambda name: network_variables(params, batch_stats, name)
    x = jax.vmap(clean_view)(images)
    features, _ = model.encoder.apply(variables("encoder"), x)
    z, _ = model.projector.apply(variables("projector"), features.embedding)
    joined = [features.embedding, features.previous]
    found = {
      "embedding": features.embedding,
      "last_two": jnp.concatenate(joined, axis=-1),
      "projection": z,
    }
    return {name: x.astype(jnp.float32) for name, x in found.items()}

  return extract


def extract_all(
  extract: Callable[..., Any],
  params: Any,
  batch_stats: Any,
  images: Any,
  *,
  batch_size: int = 256,
) -> dict[str, np.ndarray]:
  """Runs a jitted `extract` over any number of images, compiling once.

  Args:
    extract: from `make_extract`, jitted.
    params: by network.
    batch_stats: by network.
    images: anything with a length that an array of indices selects from.
    batch_size: images at a time; the last batch is padded to it.

  Returns:
    Features by name, `[N, ...]`.
  """
  parts = []
  count = len(images)
  for start in range(0, count, batch_size):
    index = np.minimum(np.arange(start, start + batch_size), count - 1)
    found = extract(params, batch_stats, images[index])
    keep = min(batch_size, count - start)
    parts.append({name: np.asarray(x)[:keep] for name, x in found.items()})
  return {
    name: np.concatenate([part[name] for part in parts]) for name in parts[0]
  }
