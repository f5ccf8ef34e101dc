"""Dense layers and heads (PlaNet, Appendix A), for any leading axes.

Every kernel starts Glorot uniform and every bias at zero, as in the official
code: Flax's own default (LeCun normal) is a different network.
"""

from collections.abc import Callable

import flax.linen as nn
import jax

from jlejepa.dots import DOTS
from jplanet.types import Array

glorot = nn.initializers.glorot_uniform()


def product(x: Array, kernel: Array, dot: str = "float32") -> Array:
  """Multiplies `[..., I]` by `[I, O]` in float32 or as `DOTS` names it."""
  return DOTS[dot](x, kernel, (((x.ndim - 1,), (0,)), ((), ())))


class Weights(nn.Module):
  """The kernel `[width, features]` and the bias of a layer, not multiplied."""

  features: int
  kernel_init: Callable = glorot
  bias_init: Callable = nn.initializers.zeros

  @nn.compact
  def __call__(self, width: int) -> tuple[Array, Array]:
    kernel = self.param("kernel", self.kernel_init, (width, self.features))
    return kernel, self.param("bias", self.bias_init, (self.features,))


class Dense(nn.Module):
  """A dense layer in float32 or with bfloat16 products (`DOTS`)."""

  features: int
  dot: str = "float32"
  kernel_init: Callable = glorot

  @nn.compact
  def __call__(self, x: Array) -> Array:
    weights = Weights(self.features, self.kernel_init, name="dense")
    kernel, bias = weights(x.shape[-1])
    return product(x, kernel, self.dot) + bias


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
