"""Dense layers and heads (PlaNet, Appendix A), for any leading axes.

Every kernel starts Glorot uniform and every bias at zero, as in the official
code: Flax's own default (LeCun normal) is a different network.
"""

from collections.abc import Callable
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from jlejepa.dots import DOTS
from jplanet.types import Array, Params

glorot = nn.initializers.glorot_uniform()


def product(x: Array, kernel: Array, dot: str = "float32") -> Array:
  """Multiplies `[..., I]` by `[I, O]` in float32 or as `DOTS` names it."""
  return DOTS[dot](x, kernel, (((x.ndim - 1,), (0,)), ((), ())))


class Affine(NamedTuple):
  """The weights of a layer: `kernel` `[I, O]` and `bias` `[O]`."""

  kernel: Array
  bias: Array


def affine(x: Array, weights: Affine, dot: str = "float32") -> Array:
  """Returns `x @ kernel + bias`, the product as `product` makes it."""
  return product(x, weights.kernel, dot) + weights.bias


def ready_for(dot: str, weights: Params) -> Params:
  """Casts kernels to the type that `product` would cast them to.

  For loops, which would do it at every step. A gradient of the weights, added
  up over those, is then of that type too.

  Args:
    dot: a name of `DOTS`.
    weights: any tree; what has two axes in it is a kernel.
  """
  if dot != "bfloat16":
    return weights
  cast = lambda x: x.astype(jnp.bfloat16) if x.ndim == 2 else x
  return jax.tree.map(cast, weights)


class Weights(nn.Module):
  """The kernel `[width, features]` and the bias of a layer, not multiplied."""

  features: int
  kernel_init: Callable = glorot
  bias_init: Callable = nn.initializers.zeros

  @nn.compact
  def __call__(self, width: int) -> Affine:
    kernel = self.param("kernel", self.kernel_init, (width, self.features))
    return Affine(kernel, self.param("bias", self.bias_init, (self.features,)))


class Dense(nn.Module):
  """A dense layer in float32 or with bfloat16 products (`DOTS`)."""

  features: int
  dot: str = "float32"
  kernel_init: Callable = glorot

  def setup(self):
    self.dense = Weights(self.features, self.kernel_init)

  def weights(self, width: int) -> Affine:
    return self.dense(width)

  def __call__(self, x: Array) -> Array:
    return affine(x, self.weights(x.shape[-1]), self.dot)


class JointDense(nn.Module):
  """A dense layer on `[first, second]` whose parts can be multiplied apart.

  Inside a scan only the part that depends on the carry needs the product;
  `project_second` does the other one for a whole sequence beforehand.
  """

  first: int
  second: int
  features: int
  dot: str = "float32"

  def setup(self):
    shape = (self.first + self.second, self.features)
    self.kernel = self.param("kernel", glorot, shape)
    self.bias = self.param("bias", nn.initializers.zeros, (self.features,))

  def weights(self) -> Affine:
    return Affine(self.kernel, self.bias)

  def project_second(self, x: Array) -> Array:
    """Returns `x @ W_second + b`, `[..., features]`."""
    return product(x, self.kernel[self.first :], self.dot) + self.bias

  def __call__(self, x: Array, projected: Array) -> Array:
    return product(x, self.kernel[: self.first], self.dot) + projected


class MLP(nn.Module):
  """`layers` ReLU layers of `units`, then a linear one of `outputs`."""

  layers: int
  units: int
  outputs: int
  dot: str = "float32"
  zero_output: bool = False

  @nn.compact
  def __call__(self, x: Array) -> Array:
    for i in range(self.layers):
      x = nn.relu(Dense(self.units, self.dot, name=f"hidden{i}")(x))
    init = nn.initializers.zeros if self.zero_output else glorot
    return Dense(self.outputs, self.dot, init, name="output")(x)


def count_weights(params) -> int:
  """Returns the number of scalars in a tree of parameters."""
  return sum(x.size for x in jax.tree.leaves(params))
