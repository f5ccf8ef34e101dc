"""The parts of a run, built from its configuration."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import optax
from ml_collections import ConfigDict

from jplanet.agent import Agent, make_agent
from jplanet.collect import make_batched_act
from jplanet.learner import TrainState, init_state
from jplanet.optimizer import make_optimizer
from jplanet.planning import bind_planner
from jplanet.types import Array, Key, WorldModel
from jplanet.world_model import make_planet

# What an episode is for: episodes for different uses never share a seed.
TRAIN, EVALUATE, REPORT, DIAGNOSE = range(4)


class Parts(NamedTuple):
  """The model, its optimiser, and the agent with its compiled `act`."""

  model: WorldModel
  optimizer: optax.GradientTransformation
  agent: Agent
  batched_act: Callable


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
  return Parts(
    model=model,
    optimizer=make_optimizer(**options),
    agent=agent,
    batched_act=make_batched_act(
      agent, config.planner[config.planner.name].candidates
    ),
  )


def first_state(
  config: ConfigDict, parts: Parts, key: Key, images: Array | None = None
) -> TrainState:
  """Makes the state before the first update; `images` as `init_state`."""
  return init_state(
    key,
    parts.model,
    parts.optimizer,
    images=images,
    ema=config.optimizer.ema,
    overlap=config.train.overlap,
  )


def episode_seeds(seed: int, use: int, first: int, count: int) -> list[int]:
  """Returns the seeds of `count` episodes from number `first` on."""
  return [
    int(np.random.SeedSequence([seed, use, i]).generate_state(1)[0])
    for i in range(first, first + count)
  ]
