"""The interface of a latent dynamics model, and the GRUs they are built of."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax.numpy as jnp

from jplanet.networks import Dense, Weights, product
from jplanet.types import Array, Key, Params, State


class Gaussian(NamedTuple):
  """A diagonal Gaussian: `mean` and `std`, both `[..., Z]`."""

  mean: Array
  std: Array


class Cell(NamedTuple):
  """A latent state-space model as pure functions of one example.

  Attributes:
    init: `(key) -> params`.
    initial: `() -> state`, all zeros and not learned.
    prior: `(params, state, action, key) -> state`, one step without an
      observation. With the key `None` the sample is the mean.
    posterior: `(params, state, action, embed, key) -> state`, one step with
      an observation embedding `[E]`.
    observe: `(params, embeds [T, E], actions [T, A], key) -> (posteriors,
      priors)`: filters a sequence from the initial state; states with a
      leading `T`, and the `Gaussian` `[T, Z]` that the prior gave for each
      step from the posterior before it.
    features: `(state) -> [F]`, what the heads see.
    gaussian: `(state) -> Gaussian`, the distribution the sample came from.
  """

  init: Callable[[Key], Params]
  initial: Callable[[], State]
  prior: Callable[[Params, State, Array, Key | None], State]
  posterior: Callable[[Params, State, Array, Array, Key | None], State]
  observe: Callable[[Params, Array, Array, Key], tuple[Any, Gaussian]]
  features: Callable[[State], Array]
  gaussian: Callable[[State], Gaussian]


class GaussianHead(nn.Module):
  """Linear mean and `softplus(linear) + min_std` on a hidden layer."""

  size: int
  min_std: float = 0.1
  dot: str = "float32"

  @nn.compact
  def __call__(self, x: Array) -> Gaussian:
    layers = [Weights(self.size, name=name) for name in ("mean", "std")]
    kernels, biases = zip(*(layer(x.shape[-1]) for layer in layers))
    both = product(x, jnp.concatenate(kernels, -1), self.dot)
    mean, std = jnp.split(both + jnp.concatenate(biases), 2, -1)
    return Gaussian(mean=mean, std=nn.softplus(std) + self.min_std)


class ResetBeforeGRU(nn.Module):
  """TensorFlow 1's GRUBlockCell (Cho et al. 2014, version 1).

      [r, u] = sigmoid(W [x, h] + b), b starts at one
      c = tanh(V [x, r * h] + d)
      h' = u * h + (1 - u) * c

  The reset gate is applied to `h` *before* the product. `flax.linen.GRUCell`
  applies it after and starts its biases at zero: another cell.
  """

  size: int
  dot: str = "float32"

  def setup(self):
    self.gates = Weights(2 * self.size, bias_init=nn.initializers.ones)
    self.candidate = Weights(self.size)

  def __call__(self, x: Array, h: Array) -> Array:
    width = x.shape[-1] + self.size
    (gates, gates_bias), (candidate, bias) = (
      weights(width) for weights in (self.gates, self.candidate)
    )
    multiply = functools.partial(product, dot=self.dot)
    # [x, h] is never joined: that would be a copy for every product.
    of_x, of_h = jnp.split(gates, [x.shape[-1]])
    candidate_of_x, candidate_of_h = jnp.split(candidate, [x.shape[-1]])
    from_x = multiply(x, jnp.concatenate([of_x, candidate_of_x], -1))
    gates, from_x = jnp.split(from_x, [2 * self.size], -1)
    gates = nn.sigmoid(gates + multiply(h, of_h) + gates_bias)
    reset, update = jnp.split(gates, 2, -1)
    candidate = jnp.tanh(from_x + multiply(reset * h, candidate_of_h) + bias)
    return update * h + (1 - update) * candidate


class ResetAfterGRU(nn.Module):
  """A GRU with one product a step: the reset gate follows it.

      [r, c, u] = W [x, h] + b
      h' = s * tanh(sigmoid(r) * c) + (1 - s) * h, s = sigmoid(u - 1)

  The form of the Dreamer agents; one product in place of two dependent ones.
  """

  size: int
  dot: str = "float32"

  @nn.compact
  def __call__(self, x: Array, h: Array) -> Array:
    joint = jnp.concatenate([x, h], -1)
    parts = Dense(3 * self.size, self.dot, name="gates")(joint)
    reset, candidate, update = jnp.split(parts, 3, -1)
    candidate = jnp.tanh(nn.sigmoid(reset) * candidate)
    update = nn.sigmoid(update - 1)
    return update * candidate + (1 - update) * h


GRUS = {"reset_before": ResetBeforeGRU, "reset_after": ResetAfterGRU}
