"""The recurrent state-space model (PlaNet, Section 3 and Appendix A).

      s_{t-1}, a_t --> x --> GRU --> h_t --> prior      p(s_t | h_t)
                              ^       |
                              |       +----> posterior  q(s_t | h_t, o_t)
                           h_{t-1}

`a_t` is the action that led to step `t`. The deterministic path `h` remembers;
the stochastic path `s` lets the model have several futures.
"""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from jplanet import gaussian
from jplanet.cells import GRUS, Cell, Gaussian, GaussianHead
from jplanet.networks import Dense, JointDense
from jplanet.types import Array, Key


class RSSMState(NamedTuple):
  """`mean`, `std`, `sample`: `[Z]`; `belief`: `[D]`, the GRU's output."""

  mean: Array
  std: Array
  sample: Array
  belief: Array


class RSSM(nn.Module):
  """The layers of the RSSM; `make_rssm` wraps them as a `Cell`."""

  embed: int
  action: int
  state: int = 30
  belief: int = 200
  hidden: int = 200
  min_std: float = 0.1
  gru: str = "reset_before"
  dot: str = "float32"

  def setup(self):
    self.input = JointDense(self.state, self.action, self.hidden, self.dot)
    self.cell = GRUS[self.gru](self.belief, self.dot)
    self.prior_hidden = Dense(self.hidden, self.dot)
    self.prior_head = GaussianHead(self.state, self.min_std, self.dot)
    self.posterior_hidden = JointDense(
      self.belief, self.embed, self.hidden, self.dot
    )
    self.posterior_head = GaussianHead(self.state, self.min_std, self.dot)

  def project(self, action: Array, embed: Array) -> tuple[Array, Array]:
    """Does the products that do not depend on the state."""
    return (
      self.input.project_second(action),
      self.posterior_hidden.project_second(embed),
    )

  def next_belief(self, sample: Array, belief: Array, action: Array) -> Array:
    return self.cell(nn.relu(self.input(sample, action)), belief)

  def prior(self, belief: Array) -> Gaussian:
    return self.prior_head(nn.relu(self.prior_hidden(belief)))

  def posterior(self, belief: Array, embed: Array) -> Gaussian:
    return self.posterior_head(nn.relu(self.posterior_hidden(belief, embed)))

  def __call__(self, sample, belief, action, embed):
    action, embed = self.project(action, embed)
    belief = self.next_belief(sample, belief, action)
    return self.prior(belief), self.posterior(belief, embed)


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
  sizes = dict(
    embed=embed,
    action=action,
    state=state,
    belief=belief,
    hidden=hidden,
    min_std=min_std,
    gru=gru,
  )
  module, fast_module = RSSM(**sizes), RSSM(**sizes, dot=fast_dot)

  def init(key: Key):
    shapes = (state, belief, action, embed)
    return module.init(key, *[jnp.zeros(n) for n in shapes])

  def initial() -> RSSMState:
    zeros = jnp.zeros(state)
    return RSSMState(zeros, zeros, zeros, jnp.zeros(belief))

  def sampled(dist: Gaussian, noise: Array | float, belief: Array):
    sample = dist.mean if mean_only else dist.mean + dist.std * noise
    return RSSMState(dist.mean, dist.std, sample, belief)

  def prior(params, prev: RSSMState, act: Array, key: Key | None):
    call = lambda name, *args: fast_module.apply(params, *args, method=name)
    act = fast_module.apply(
      params, act, method=lambda m, a: m.input.project_second(a)
    )
    belief = call("next_belief", prev.sample, prev.belief, act)
    noise = 0.0 if key is None else gaussian.noise(key, (state,))
    return sampled(call("prior", belief), noise, belief)

  def posterior_step(params, prev: RSSMState, act, embed, noise):
    belief = module.apply(
      params, prev.sample, prev.belief, act, method="next_belief"
    )
    dist = module.apply(params, belief, embed, method="posterior")
    return sampled(dist, noise, belief)

  def posterior(params, prev: RSSMState, act, embed, key: Key | None):
    act, embed = module.apply(params, act, embed, method="project")
    noise = 0.0 if key is None else gaussian.noise(key, (state,))
    return posterior_step(params, prev, act, embed, noise)

  def observe(params, embeds: Array, actions: Array, key: Key):
    inputs = module.apply(params, actions, embeds, method="project")
    noise = gaussian.noise(key, (len(actions), state))

    def step(prev, x):
      new = posterior_step(params, prev, *x)
      return new, new

    _, posteriors = jax.lax.scan(step, initial(), (*inputs, noise))
    # The prior of a step needs the belief only, so it waits for the scan.
    priors = module.apply(params, posteriors.belief, method="prior")
    return posteriors, priors

  def features(s: RSSMState) -> Array:
    return s.belief if belief_only else jnp.concatenate([s.sample, s.belief])

  def dist(s: RSSMState) -> Gaussian:
    return Gaussian(s.mean, s.std)

  return Cell(init, initial, prior, posterior, observe, features, dist)
