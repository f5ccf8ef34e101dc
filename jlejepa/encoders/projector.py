"""The projector: an MLP with BatchNorm, on whose output the loss is taken."""

import flax.linen as nn
import jax.numpy as jnp

from jlejepa.dots import DOTS
from jlejepa.encoders.layers import batch_norm, from_module
from jlejepa.encoders.options import check_precision
from jlejepa.encoders.types import Array, Projector


class MLP(nn.Module):
  """`layers - 1` hidden layers with BatchNorm and ReLU, then a linear one."""

  layers: int
  hidden: int
  out: int
  dot: str

  @nn.compact
  def __call__(self, x: Array, *, train: bool) -> Array:
    x = x.astype(jnp.float32)
    dense = lambda features, name: nn.Dense(
      features, dot_general=DOTS[self.dot], name=name
    )
    for i in range(self.layers - 1):
      x = dense(self.hidden, f"hidden{i}")(x)
      x = nn.relu(batch_norm(x, train, -1, f"hidden{i}_norm"))
    return dense(self.out, "output")(x)


def make_projector(
  *, layers: int = 3, hidden: int = 2048, out: int = 64, dot: str = "float32"
) -> Projector:
  """Makes a projector of embeddings `[N, D]`.

  Its BatchNorm takes the `N` it is given as one batch: give it all views.

  Args:
    layers: linear layers, the last included; 0 is the identity, `K = D`.
    hidden: width of all but the last.
    out: `K`; ignored with `layers=0`.
    dot: "float32", or "bfloat16" for products of bfloat16 summed in float32.

  Raises:
    ValueError: for sizes below 1, or a `dot` that does not exist.
  """
  if layers < 0 or hidden < 1 or out < 1:
    raise ValueError(
      "a projector needs layers >= 0, hidden >= 1 and out >= 1, got"
      f" layers={layers}, hidden={hidden}, out={out}"
    )
  check_precision(dot=dot)
  if layers == 0:
    return Projector(
      lambda key, x: {"params": {}, "batch_stats": {}},
      lambda variables, x, *, train=False: (x, variables["batch_stats"]),
    )
  encoder = from_module(MLP(layers, hidden, out, dot))
  return Projector(encoder.init, encoder.apply)
