"""The agent: filter, plan in the latent space, add noise (Algorithm 1).

There is no policy. Each decision encodes the image, takes one posterior step
and plans from the sampled state; one key per environment and decision makes
the action the same whether the environment is alone or among others.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jplanet.types import Array, Key, Params, Plan, State, WorldModel
from jplanet.unroll import imagined_return

Planner = Callable[..., Plan]


class AgentState(NamedTuple):
  """What the agent carries from one decision to the next.

  Attributes:
    latent: the filtered state of the world model.
    action: `[A]`, the action executed last.
    plan: the last `Plan`, for warm starts.
  """

  latent: State
  action: Array
  plan: Plan


class Agent(NamedTuple):
  """`init() -> AgentState` and `act(...)`, both for one environment.

  `act(params, state, image, key, noise) -> (action, state)` takes a uint8 image
  `[S, S, 3]` and the standard deviation of the exploration noise; the action
  `[A]` is in `[-1, 1]`, noise and clipping included.
  """

  init: Callable[[], AgentState]
  act: Callable[..., tuple[Array, AgentState]]


def make_agent(
  model: WorldModel,
  planner: Planner,
  empty_plan: Plan,
  *,
  sample_prior: bool = True,
) -> Agent:
  """Makes an agent that plans with `model`.

  Args:
    model: the world model.
    planner: `(key, score_fn, warm=Plan) -> Plan`, constants bound.
    empty_plan: the `Plan` carried before the first decision.
    sample_prior: roll candidates out with sampled latent states (the paper);
      otherwise with the means of the prior.

  Returns:
    An `Agent`.
  """
  action_dim = empty_plan.actions.shape[-1]

  def init() -> AgentState:
    return AgentState(
      latent=model.initial(), action=jnp.zeros(action_dim), plan=empty_plan
    )

  def act(
    params: Params, state: AgentState, image: Array, key: Key, noise: Array
  ) -> tuple[Array, AgentState]:
    encode_key, filter_key, plan_key, noise_key = jax.random.split(key, 4)
    embed = model.encode(params, image, encode_key)
    latent = model.observe(
      params, state.latent, state.action, embed, filter_key
    )

    def score(actions: Array, key: Key) -> Array:
      key = key if sample_prior else None
      return imagined_return(model, params, latent, actions, key)

    plan = planner(plan_key, score, warm=state.plan)
    wiggle = noise * jax.random.normal(noise_key, (action_dim,))
    action = jnp.clip(plan.actions[0] + wiggle, -1, 1)
    return action, AgentState(latent=latent, action=action, plan=plan)

  return Agent(init=init, act=act)
