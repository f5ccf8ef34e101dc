"""Encoders by name."""

import inspect
from collections.abc import Callable
from typing import Any

from jlejepa.dots import DOTS, resolve
from jlejepa.encoders.compact import make_compact
from jlejepa.encoders.convnext import make_convnext
from jlejepa.encoders.options import check_choice
from jlejepa.encoders.resnet import make_resnet
from jlejepa.encoders.types import Array, Encoder, Features, Key
from jlejepa.encoders.vit import make_vit

ENCODERS: dict[str, Callable[..., Encoder]] = {
  "compact": make_compact,
  "convnext": make_convnext,
  "resnet": make_resnet,
  "vit": make_vit,
}


def default_options() -> dict[str, dict[str, Any]]:
  """Returns every encoder's options and their defaults, by name."""
  return {
    name: {
      p.name: p.default for p in inspect.signature(maker).parameters.values()
    }
    for name, maker in ENCODERS.items()
  }


def make_encoder(name: str, **options: Any) -> Encoder:
  """Makes an encoder of `ENCODERS`.

  Args:
    name: a key of `ENCODERS`.
    **options: of that encoder; the rest keep the defaults of
      `default_options()[name]`. `dot="auto"` is what `jlejepa.dots.resolve`
      makes of it.

  Raises:
    ValueError: for an unknown name or option, or a value that does not fit.
  """
  check_choice("encoder", name, ENCODERS)
  known = inspect.signature(ENCODERS[name]).parameters
  for option in options:
    check_choice(f"option of encoder {name!r}:", option, known)
  if "dot" in options:
    check_choice("dot", options["dot"], (*DOTS, "auto"))
    options["dot"] = resolve(options["dot"])
  return ENCODERS[name](**options)


def from_function(
  init: Callable[[Key, Array], Any], apply: Callable[[Any, Array], Array]
) -> Encoder:
  """Makes an encoder of a stateless function, for inputs of any shape.

  Vectors, audio, tokens: whatever `apply` takes. All three features are its
  output, with `tokens` a 1x1 map of it. Drop path and BatchNorm have no place
  in such an encoder: write an `Encoder` for those.

  Args:
    init: `(key, inputs [N, ...]) -> params`.
    apply: `(params, inputs [N, ...]) -> [N, D]`.

  Raises:
    ValueError: when applied, if the output is not `[N, D]`.
  """

  def init_variables(key, inputs):
    return {"params": init(key, inputs), "batch_stats": {}}

  def apply_variables(variables, inputs, *, train=False, key=None):
    del train, key
    x = apply(variables["params"], inputs)
    if x.ndim != 2 or x.shape[0] != inputs.shape[0]:
      raise ValueError(
        f"an encoder must return embeddings [N={inputs.shape[0]}, D], got"
        f" {list(x.shape)}"
      )
    return Features(x, x, x[:, None, None]), variables["batch_stats"]

  return Encoder(init_variables, apply_variables)
