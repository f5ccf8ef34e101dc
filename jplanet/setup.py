"""The parts of a run, built from its configuration."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import numpy as np
import optax
from ml_collections import ConfigDict

from jplanet.agent import Agent, make_agent
from jplanet.collect import make_batched_act
from jplanet.learner import init_state
from jplanet.optimizer import make_optimizer
from jplanet.planning import bind_planner
from jplanet.types import WorldModel
from jplanet.world_model import make_planet

# What an episode is for: episodes for different uses never share a seed.
TRAIN, EVALUATE, REPORT, DIAGNOSE = range(4)


class Parts(NamedTuple):
  """The model, its optimiser, and the agent with its compiled `act`.

  `init`, compiled too, is `init_state` of these: `(key, images=None) -> state`.
  """

  model: WorldModel
  optimizer: optax.GradientTransformation
  agent: Agent
  batched_act: Callable
  init: Callable


def build(config: ConfigDict, action_dim: int) -> Parts:
  """Builds everything that needs the configuration and `A` alone."""
  model = make_planet(config, action_dim=action_dim)
  options = dict(config.optimizer)
  del options["ema"]
  planner = bind_planner(config.planner, action_dim)
  agent = make_agent(
    model,
    planner.planner,
    planner.empty_plan,
    sample_prior=config.planner.sample_prior,
  )
  optimizer = make_optimizer(**options)
  init = partial(
    init_state,
    model=model,
    optimizer=optimizer,
    ema=config.optimizer.ema,
    overlap=config.train.overlap,
  )
  return Parts(
    model=model,
    optimizer=optimizer,
    agent=agent,
    batched_act=make_batched_act(
      agent, config.planner[config.planner.name].candidates
    ),
    # One program: op by op, each would be compiled by itself.
    init=jax.jit(init),
  )


def episode_seeds(seed: int, use: int, first: int, count: int) -> list[int]:
  """Returns the seeds of `count` episodes from number `first` on."""
  return [
    int(np.random.SeedSequence([seed, use, i]).generate_state(1)[0])
    for i in range(first, first + count)
  ]
