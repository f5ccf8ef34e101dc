"""Layers and the wrapper that every encoder here shares."""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from jlejepa.encoders.convolution import convolve
from jlejepa.encoders.types import Array, Encoder

he_normal = nn.initializers.he_normal()


class Conv(nn.Module):
  """A convolution of `[C, H, W, N]` without bias; see `convolve`."""

  features: int
  size: int
  stride: int = 1
  padding: int = 0
  form: str = "auto"
  dot: str = "float32"
  kernel_init: Callable = he_normal

  @nn.compact
  def __call__(self, x: Array) -> Array:
    shape = (self.size, self.size, x.shape[0], self.features)
    return convolve(
      x,
      self.param("kernel", self.kernel_init, shape),
      stride=self.stride,
      padding=self.padding,
      form=self.form,
      dot=self.dot,
    )


def batch_norm(x: Array, train: bool, axis: int, name: str, **options) -> Array:
  """Normalises over every axis but `axis`.

  With `train` by the mean and (biased) variance of the batch, which under jit
  is the global batch however it is sharded; the running ones become
  `0.9 * running + 0.1 * batch`. Without `train` by the running ones. Statistics
  are float32, the result has the dtype of `x`.
  """
  return nn.BatchNorm(
    use_running_average=not train,
    axis=axis,
    momentum=0.9,
    # E[x^2] - E[x]^2 loses the variance of activations far from zero.
    use_fast_variance=False,
    dtype=x.dtype,
    name=name,
    **options,
  )(x)


class DropPath(nn.Module):
  """Stochastic depth: drops the branch of whole examples, axis 0 of `x`.

  In training an example keeps its branch with probability `1 - rate`, divided
  by that, so that the mean over keys is the branch; otherwise nothing happens.

  Raises:
    ValueError: in training without a key.
  """

  rate: float

  @nn.compact
  def __call__(self, x: Array, train: bool) -> Array:
    if not train or self.rate == 0:
      return x
    if not self.has_rng("drop_path"):
      raise ValueError(
        f"drop path of {self.rate:.2g} needs a key in training: give key=..."
      )
    keep = 1 - self.rate
    shape = (x.shape[0],) + (1,) * (x.ndim - 1)
    kept = jax.random.bernoulli(self.make_rng("drop_path"), keep, shape)
    return jnp.where(kept, x / keep, jnp.zeros_like(x))


def drop_rates(last: float, depth: int) -> list[float]:
  """Returns rates that rise linearly from 0 at the first block to `last`."""
  return [last * i / max(depth - 1, 1) for i in range(depth)]


def from_module(module: nn.Module) -> Encoder:
  """Makes an `Encoder` of a module `(images, *, train) -> Features`."""

  def init(key, images):
    variables = module.init(key, images, train=False)
    return {"params": variables["params"], "batch_stats": _stats(variables)}

  def apply(variables, images, *, train=False, key=None):
    if not train:
      return module.apply(variables, images, train=False), _stats(variables)
    features, changed = module.apply(
      variables,
      images,
      train=True,
      mutable=["batch_stats"],
      rngs=None if key is None else {"drop_path": key},
    )
    return features, _stats(changed)

  return Encoder(init, apply)


def _stats(variables):
  return variables.get("batch_stats", {})
