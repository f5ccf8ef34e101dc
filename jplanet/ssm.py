"""The state-space model without a deterministic path (PlaNet, Section 3).

      s_{t-1}, a_t --> prior      p(s_t | s_{t-1}, a_t)
                         |
                         +------> posterior  q(s_t | prior, o_t)

An ablation: whatever the model remembers must survive being sampled anew at
every step.
"""

import functools
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from jplanet import gaussian
from jplanet.cells import Cell, GaussianHead
from jplanet.gaussian import Gaussian
from jplanet.networks import JointDense, ready_for
from jplanet.types import Array, Key


class SSMState(NamedTuple):
  """`mean`, `std`, `sample`: `[Z]`."""

  mean: Array
  std: Array
  sample: Array


class SSM(nn.Module):
  """The layers of the state-space model; `make_ssm` wraps them as a `Cell`."""

  embed: int
  action: int
  state: int = 30
  hidden: int = 200
  min_std: float = 0.1
  dot: str = "float32"

  def setup(self):
    self.prior_hidden = JointDense(
      self.state, self.action, self.hidden, self.dot
    )
    self.prior_head = GaussianHead(self.state, self.min_std, self.dot)
    self.posterior_hidden = JointDense(
      2 * self.state, self.embed, self.hidden, self.dot
    )
    self.posterior_head = GaussianHead(self.state, self.min_std, self.dot)

  def project_action(self, action: Array) -> Array:
    return self.prior_hidden.project_second(action)

  def project_embed(self, embed: Array) -> Array:
    return self.posterior_hidden.project_second(embed)

  def prior(self, sample: Array, action: Array) -> Gaussian:
    return self.prior_head(nn.relu(self.prior_hidden(sample, action)))

  def posterior(self, prior: Gaussian, embed: Array) -> Gaussian:
    joint = jnp.concatenate([prior.mean, prior.std], -1)
    return self.posterior_head(nn.relu(self.posterior_hidden(joint, embed)))

  def __call__(self, sample, action, embed):
    prior = self.prior(sample, self.project_action(action))
    return prior, self.posterior(prior, self.project_embed(embed))


def make_ssm(
  *,
  embed: int,
  action: int,
  state: int = 30,
  hidden: int = 200,
  min_std: float = 0.1,
  mean_only: bool = False,
  fast_dot: str = "float32",
) -> Cell:
  """Makes the stochastic state-space model (the paper's "SSM").

  Args:
    embed: size `E` of an observation embedding.
    action: size `A` of an action.
    state: size `Z` of the stochastic state, which is all the heads see.
    hidden: width of both hidden layers.
    min_std: added to the softplus of every standard deviation.
    mean_only: take means for samples, in prior and posterior alike.
    fast_dot: the products of `prior` alone (planning): "float32" or
      "bfloat16" with float32 sums.

  Returns:
    A `Cell` whose states are `SSMState`s.
  """
  sizes = dict(
    embed=embed, action=action, state=state, hidden=hidden, min_std=min_std
  )
  module, fast_module = SSM(**sizes), SSM(**sizes, dot=fast_dot)

  def init(key: Key):
    return module.init(key, *[jnp.zeros(n) for n in (state, action, embed)])

  def initial() -> SSMState:
    zeros = jnp.zeros(state)
    return SSMState(mean=zeros, std=zeros, sample=zeros)

  def sampled(dist: Gaussian, noise: Array | float) -> SSMState:
    sample = gaussian.sample(dist, noise, mean_only=mean_only)
    return SSMState(mean=dist.mean, std=dist.std, sample=sample)

  draw = lambda key: gaussian.noise(key, (state,))

  def prior(params, prev: SSMState, act: Array, key: Key | None):
    act = fast_module.apply(params, act, method="project_action")
    dist = fast_module.apply(params, prev.sample, act, method="prior")
    return sampled(dist, draw(key))

  def filter_step(params, prev: SSMState, act, embed, noise):
    before = module.apply(params, prev.sample, act, method="prior")
    after = module.apply(params, before, embed, method="posterior")
    return sampled(after, noise), before

  def project(params, act, embed):
    return (
      module.apply(params, act, method="project_action"),
      module.apply(params, embed, method="project_embed"),
    )

  def posterior(params, prev: SSMState, act, embed, key: Key | None):
    inputs = project(params, act, embed)
    return filter_step(params, prev, *inputs, draw(key))[0]

  def observe(params, embeds: Array, actions: Array, key: Key):
    inputs = project(params, actions, embeds)
    noise = gaussian.noise(key, (len(actions), state))

    def step(prev, x):
      new, before = filter_step(params, prev, *x)
      return new, (new, before)

    return jax.lax.scan(step, initial(), (*inputs, noise))[1]

  def features(s: SSMState) -> Array:
    return s.sample

  def dist(s: SSMState) -> Gaussian:
    return Gaussian(mean=s.mean, std=s.std)

  prepare = functools.partial(ready_for, fast_dot)
  return Cell(init, initial, prior, posterior, observe, features, dist, prepare)
