"""The recurrent state-space model (PlaNet, Section 3 and Appendix A).

      s_{t-1}, a_t --> x --> GRU --> h_t --> prior      p(s_t | h_t)
                              ^       |
                              |       +----> posterior  q(s_t | h_t, o_t)
                           h_{t-1}

`a_t` is the action that led to step `t`. The deterministic path `h` remembers;
the stochastic path `s` lets the model have several futures.
"""

from typing import Any, NamedTuple

import flax.linen as nn
import jax.numpy as jnp

from jplanet import gaussian
from jplanet.cells import GRUS, Cell, GaussianHead
from jplanet.gaussian import Gaussian
from jplanet.late_gradients import scan_states
from jplanet.networks import (
  Affine,
  Dense,
  JointDense,
  affine,
  product,
  ready_for,
)
from jplanet.types import Array, Key


class RSSMState(NamedTuple):
  """`mean`, `std`, `sample`: `[Z]`; `belief`: `[D]`, the GRU's output."""

  mean: Array
  std: Array
  sample: Array
  belief: Array


class PriorWeights(NamedTuple):
  """What a step of the prior multiplies by; `input` is of `[s, a]`."""

  input: Affine
  gru: Any
  hidden: Affine
  head: Affine


class PosteriorWeights(NamedTuple):
  """The same of the posterior, whose `project` comes first."""

  of_sample: Array
  gru: Any
  of_belief: Array
  head: Affine


class RSSM(nn.Module):
  """The weights of the RSSM; `make_rssm` makes a `Cell` of them."""

  embed: int
  action: int
  state: int = 30
  belief: int = 200
  hidden: int = 200
  min_std: float = 0.1
  gru: str = "reset_before"

  def setup(self):
    self.input = JointDense(self.state, self.action, self.hidden)
    self.cell = GRUS[self.gru](self.belief)
    self.prior_hidden = Dense(self.hidden)
    self.prior_head = GaussianHead(self.state, self.min_std)
    self.posterior_hidden = JointDense(self.belief, self.embed, self.hidden)
    self.posterior_head = GaussianHead(self.state, self.min_std)

  def project(self, action: Array, embed: Array) -> tuple[Array, Array]:
    """Does the products that do not depend on the state."""
    return (
      self.input.project_second(action),
      self.posterior_hidden.project_second(embed),
    )

  def weights(self) -> tuple[PriorWeights, PosteriorWeights]:
    prior = PriorWeights(
      input=self.input.weights(),
      gru=self.cell.weights(self.hidden),
      hidden=self.prior_hidden.weights(self.belief),
      head=self.prior_head.weights(self.hidden),
    )
    posterior = PosteriorWeights(
      of_sample=self.input.kernel[: self.state],
      gru=prior.gru,
      of_belief=self.posterior_hidden.kernel[: self.belief],
      head=self.posterior_head.weights(self.hidden),
    )
    return prior, posterior


def make_rssm(
  *,
  embed: int,
  action: int,
  state: int = 30,
  belief: int = 200,
  hidden: int = 200,
  min_std: float = 0.1,
  gru: str = "reset_before",
  mean_only: bool = False,
  belief_only: bool = False,
  fast_dot: str = "float32",
) -> Cell:
  """Makes the RSSM.

  Args:
    embed: size `E` of an observation embedding.
    action: size `A` of an action.
    state: size `Z` of the stochastic state.
    belief: size `D` of the deterministic state.
    hidden: width of every hidden layer.
    min_std: added to the softplus of every standard deviation.
    gru: "reset_before" (the paper's) or "reset_after" (faster).
    mean_only: take means for samples, in prior and posterior alike: the
      paper's "deterministic GRU".
    belief_only: give the heads the belief alone. With `mean_only` and no KL
      loss, nothing trains the prior's mean, and a planner that feeds it to the
      heads plans on noise; without it among the features the deterministic
      model is judged fairly.
    fast_dot: the products of `prior` alone (planning): "float32" or
      "bfloat16" with float32 sums.

  Returns:
    A `Cell` whose states are `RSSMState`s.
  """
  module = RSSM(
    embed=embed,
    action=action,
    state=state,
    belief=belief,
    hidden=hidden,
    min_std=min_std,
    gru=gru,
  )
  advance = GRUS[gru].step
  read = GaussianHead(state, min_std).read

  def init(key: Key):
    return module.init(key, method="weights")

  def initial() -> RSSMState:
    zeros = jnp.zeros(state)
    return RSSMState(zeros, zeros, zeros, jnp.zeros(belief))

  def sampled(dist: Gaussian, noise: Array | float, belief: Array):
    sample = gaussian.sample(dist, noise, mean_only=mean_only)
    return RSSMState(dist.mean, dist.std, sample, belief)

  draw = lambda key: gaussian.noise(key, (state,))

  def prepare(params) -> PriorWeights:
    if isinstance(params, PriorWeights):
      return params
    return ready_for(fast_dot, module.apply(params, method="weights")[0])

  def prior(params, prev: RSSMState, act: Array, key: Key | None):
    w = prepare(params)
    joint = jnp.concatenate([prev.sample, act])
    x = nn.relu(affine(joint, w.input, fast_dot))
    new = advance(w.gru, x, prev.belief, fast_dot)
    return sampled(prior_of(w, new, fast_dot), draw(key), new)

  def prior_of(w: PriorWeights, belief: Array, dot: str) -> Gaussian:
    return read(affine(nn.relu(affine(belief, w.hidden, dot)), w.head, dot))

  def posterior_step(w: PosteriorWeights, prev: RSSMState, act, embed, noise):
    x = nn.relu(product(prev.sample, w.of_sample) + act)
    new = advance(w.gru, x, prev.belief, "float32")
    hidden = nn.relu(product(new, w.of_belief) + embed)
    return sampled(read(affine(hidden, w.head)), noise, new)

  def posterior(params, prev: RSSMState, act, embed, key: Key | None):
    act, embed = module.apply(params, act, embed, method="project")
    _, weights = module.apply(params, method="weights")
    return posterior_step(weights, prev, act, embed, draw(key))

  def observe(params, embeds: Array, actions: Array, key: Key):
    inputs = module.apply(params, actions, embeds, method="project")
    prior_weights, weights = module.apply(params, method="weights")
    noise = gaussian.noise(key, (len(actions), state))
    step = lambda weights, prev, x: posterior_step(weights, prev, *x)
    posteriors = scan_states(step, weights, initial(), (*inputs, noise))
    # The prior of a step needs the belief only, so it waits for the scan.
    return posteriors, prior_of(prior_weights, posteriors.belief, "float32")

  def features(s: RSSMState) -> Array:
    return s.belief if belief_only else jnp.concatenate([s.sample, s.belief])

  def dist(s: RSSMState) -> Gaussian:
    return Gaussian(s.mean, s.std)

  return Cell(init, initial, prior, posterior, observe, features, dist, prepare)
