"""The interface of a latent dynamics model, and the GRUs they are built of."""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax.numpy as jnp

from jplanet.gaussian import Gaussian
from jplanet.networks import Affine, Dense, Weights, affine, product
from jplanet.types import Array, Key, Params, State


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
    prepare: `(params) -> params` for `prior` alone: its weights cast and joined
      once, which it would do at every step.
  """

  init: Callable[[Key], Params]
  initial: Callable[[], State]
  prior: Callable[[Params, State, Array, Key | None], State]
  posterior: Callable[[Params, State, Array, Array, Key | None], State]
  observe: Callable[[Params, Array, Array, Key], tuple[Any, Gaussian]]
  features: Callable[[State], Array]
  gaussian: Callable[[State], Gaussian]
  prepare: Callable[[Params], Params]


class GaussianHead(nn.Module):
  """Linear mean and `softplus(linear) + min_std` on a hidden layer."""

  size: int
  min_std: float = 0.1
  dot: str = "float32"

  def setup(self):
    self.mean, self.std = Weights(self.size), Weights(self.size)

  def weights(self, width: int) -> Affine:
    """Returns the layers of mean and std side by side, `[width, 2 Z]`."""
    layers = zip(self.mean(width), self.std(width))
    return Affine(*(jnp.concatenate(pair, -1) for pair in layers))

  def read(self, both: Array) -> Gaussian:
    """Takes what those layers make, `[.., 2 Z]`, apart."""
    mean, std = jnp.split(both, 2, -1)
    return Gaussian(mean=mean, std=nn.softplus(std) + self.min_std)

  def __call__(self, x: Array) -> Gaussian:
    return self.read(affine(x, self.weights(x.shape[-1]), self.dot))


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

  def weights(self, width: int) -> tuple[Affine, Array, Array]:
    """Returns the weights of `x`, of `h` and of `r * h`, which have no bias.

    [x, h] is never joined: that would be a copy for every product.
    """
    gates, candidate = (
      layer(width + self.size) for layer in (self.gates, self.candidate)
    )
    of_x, of_h = jnp.split(gates.kernel, [width])
    candidate_of_x, candidate_of_h = jnp.split(candidate.kernel, [width])
    kernel = jnp.concatenate([of_x, candidate_of_x], -1)
    bias = jnp.concatenate([gates.bias, candidate.bias])
    return Affine(kernel, bias), of_h, candidate_of_h

  @staticmethod
  def step(weights, x: Array, h: Array, dot: str) -> Array:
    of_x, of_h, candidate_of_h = weights
    gates, candidate = jnp.split(affine(x, of_x, dot), [2 * h.shape[-1]], -1)
    gates = nn.sigmoid(gates + product(h, of_h, dot))
    reset, update = jnp.split(gates, 2, -1)
    candidate = jnp.tanh(candidate + product(reset * h, candidate_of_h, dot))
    return update * h + (1 - update) * candidate

  def __call__(self, x: Array, h: Array) -> Array:
    return self.step(self.weights(x.shape[-1]), x, h, self.dot)


class ResetAfterGRU(nn.Module):
  """A GRU with one product a step: the reset gate follows it.

      [r, c, u] = W [x, h] + b
      h' = s * tanh(sigmoid(r) * c) + (1 - s) * h, s = sigmoid(u - 1)

  The form of the Dreamer agents; one product in place of two dependent ones.
  """

  size: int
  dot: str = "float32"

  def setup(self):
    self.gates = Dense(3 * self.size)

  def weights(self, width: int) -> Affine:
    return self.gates.weights(width + self.size)

  @staticmethod
  def step(weights: Affine, x: Array, h: Array, dot: str) -> Array:
    parts = affine(jnp.concatenate([x, h], -1), weights, dot)
    reset, candidate, update = jnp.split(parts, 3, -1)
    candidate = jnp.tanh(nn.sigmoid(reset) * candidate)
    update = nn.sigmoid(update - 1)
    return update * candidate + (1 - update) * h

  def __call__(self, x: Array, h: Array) -> Array:
    return self.step(self.weights(x.shape[-1]), x, h, self.dot)


GRUS = {"reset_before": ResetBeforeGRU, "reset_after": ResetAfterGRU}
