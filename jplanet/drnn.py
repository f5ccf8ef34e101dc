"""Two GRUs with a stochastic sequence between them (PlaNet, Appendix D).

      o_t, a_t, s_{t-1} --> encoder GRU --> e_t
      e_t, s_{t-1}, d_{t-1} --> q(s_t)
      s_t --> decoder GRU --> d_t --> heads

An ablation, the "DRNN". The prior is the same network with zeros in place of
the observation's embedding; latent overshooting helps this model most.
"""

import functools
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from jplanet import gaussian
from jplanet.cells import GRUS, Cell, GaussianHead
from jplanet.gaussian import Gaussian
from jplanet.networks import Dense, ready_for
from jplanet.types import Array, Key


class DRNNState(NamedTuple):
  """`mean`, `std`, `sample`: `[Z]`; `encoder`, `decoder`: `[D]`, the GRUs."""

  mean: Array
  std: Array
  sample: Array
  encoder: Array
  decoder: Array


class DRNN(nn.Module):
  """The layers of the DRNN; `make_drnn` wraps them as a `Cell`."""

  state: int = 30
  belief: int = 200
  hidden: int = 200
  min_std: float = 0.1
  gru: str = "reset_before"
  dot: str = "float32"

  def setup(self):
    self.encoder = GRUS[self.gru](self.belief, self.dot)
    self.hidden_layer = Dense(self.hidden, self.dot)
    self.head = GaussianHead(self.state, self.min_std, self.dot)
    self.decoder = GRUS[self.gru](self.belief, self.dot)

  def infer(
    self, prev: DRNNState, action: Array, embed: Array
  ) -> tuple[Gaussian, Array]:
    """Returns the distribution of the new state, and the encoder's state."""
    inputs = jnp.concatenate([embed, action, prev.sample], -1)
    encoder = self.encoder(inputs, prev.encoder)
    joint = jnp.concatenate([encoder, prev.sample, prev.decoder], -1)
    return self.head(nn.relu(self.hidden_layer(joint))), encoder

  def decode(self, sample: Array, decoder: Array) -> Array:
    return self.decoder(sample, decoder)

  def __call__(self, prev, action, embed):
    dist, _ = self.infer(prev, action, embed)
    return self.decode(dist.mean, prev.decoder)


def make_drnn(
  *,
  embed: int,
  action: int,
  state: int = 30,
  belief: int = 200,
  hidden: int = 200,
  min_std: float = 0.1,
  gru: str = "reset_before",
  mean_only: bool = False,
  fast_dot: str = "float32",
) -> Cell:
  """Makes the DRNN with the official code's default wiring.

  Args:
    embed: size `E` of an observation embedding.
    action: size `A` of an action.
    state: size `Z` of the stochastic state.
    belief: size `D` of either GRU; the heads see the decoder's.
    hidden: width of the hidden layer before the distribution.
    min_std: added to the softplus of every standard deviation.
    gru: "reset_before" (the official code's) or "reset_after" (faster).
    mean_only: take means for samples, in prior and posterior alike.
    fast_dot: the products of `prior` alone (planning): "float32" or
      "bfloat16" with float32 sums.

  Returns:
    A `Cell` whose states are `DRNNState`s.
  """
  sizes = dict(
    state=state, belief=belief, hidden=hidden, min_std=min_std, gru=gru
  )
  module, fast_module = DRNN(**sizes), DRNN(**sizes, dot=fast_dot)
  unseen = jnp.zeros(embed)

  def init(key: Key):
    return module.init(key, initial(), jnp.zeros(action), unseen)

  def initial() -> DRNNState:
    zeros, memory = jnp.zeros(state), jnp.zeros(belief)
    return DRNNState(
      mean=zeros, std=zeros, sample=zeros, encoder=memory, decoder=memory
    )

  def step(layers: DRNN, params, prev: DRNNState, act, embed, noise):
    dist, encoder = layers.apply(params, prev, act, embed, method="infer")
    sample = gaussian.sample(dist, noise, mean_only=mean_only)
    return DRNNState(
      mean=dist.mean,
      std=dist.std,
      sample=sample,
      encoder=encoder,
      decoder=layers.apply(params, sample, prev.decoder, method="decode"),
    )

  draw = lambda key: gaussian.noise(key, (state,))

  def prior(params, prev: DRNNState, act: Array, key: Key | None):
    return step(fast_module, params, prev, act, unseen, draw(key))

  def posterior(params, prev: DRNNState, act, embed, key: Key | None):
    return step(module, params, prev, act, embed, draw(key))

  def observe(params, embeds: Array, actions: Array, key: Key):
    noise = gaussian.noise(key, (len(actions), state))

    def filter_step(prev, x):
      new = step(module, params, prev, *x)
      return new, (prev, new)

    inputs = (actions, embeds, noise)
    _, (before, posteriors) = jax.lax.scan(filter_step, initial(), inputs)
    # A prior needs only the posterior before it, so all wait for the scan.
    priors, _ = module.apply(
      params, before, actions, jnp.zeros_like(embeds), method="infer"
    )
    return posteriors, priors

  def features(s: DRNNState) -> Array:
    return s.decoder

  def dist(s: DRNNState) -> Gaussian:
    return Gaussian(mean=s.mean, std=s.std)

  prepare = functools.partial(ready_for, fast_dot)
  return Cell(init, initial, prior, posterior, observe, features, dist, prepare)
