"""Wrong input to a world model is one line, not an error from inside XLA."""

from typing import Any

import jax.numpy as jnp

from jplanet.types import Batch, WorldModel


def checked(
  model: WorldModel, *, action_dim: int, image_size: int
) -> WorldModel:
  """Returns a model whose functions look at what they are given.

  Shapes and types alone, so under `jit` it happens once, while tracing.

  Args:
    model: the world model.
    action_dim: `A`.
    image_size: `S`.

  Returns:
    The model; its `encode`, `observe`, `imagine` and `loss` raise a ValueError
    that names the argument, what was expected and what was found.
  """
  image = (image_size, image_size, 3)

  def encode(params, x, key):
    _require("encode", "image", x, "uint8", image)
    return model.encode(params, x, key)

  def observe(params, state, action, embed, key):
    _require("observe", "action", action, "float32", (action_dim,))
    return model.observe(params, state, action, embed, key)

  def imagine(params, state, action, key):
    _require("imagine", "action", action, "float32", (action_dim,))
    return model.imagine(params, state, action, key)

  def loss(params, batch: Batch, key):
    lead = jnp.shape(batch.reward)
    if len(lead) != 2:
      raise ValueError(
        "loss: batch.reward must be float32 [B, T], got"
        f" {_describe(batch.reward)}"
      )
    _require("loss", "batch.image", batch.image, "uint8", (*lead, *image))
    _require(
      "loss", "batch.action", batch.action, "float32", (*lead, action_dim)
    )
    _require("loss", "batch.reward", batch.reward, "float32", lead)
    return model.loss(params, batch, key)

  return model._replace(
    encode=encode, observe=observe, imagine=imagine, loss=loss
  )


def _require(where: str, name: str, value: Any, dtype: str, shape: tuple):
  found = jnp.result_type(value)
  # Other widths of floats become float32; other integers are no pixels.
  floats = dtype == "float32" and jnp.issubdtype(found, jnp.floating)
  if jnp.shape(value) != shape or not (floats or found == dtype):
    raise ValueError(
      f"{where}: {name} must be {dtype} {list(shape)}, got {_describe(value)}"
    )


def _describe(value: Any) -> str:
  return f"{jnp.result_type(value)} {list(jnp.shape(value))}"
