"""Planners by name, with their constants bound."""

import functools
import inspect
from collections.abc import Mapping
from typing import NamedTuple

import jax

from jplanet import planners
from jplanet.agent import Planner
from jplanet.types import Plan

PLANNERS = {
  "cem": planners.cem,
  "gradient": planners.gradient_plan,
  "icem": planners.icem,
  "mppi": planners.mppi,
  "random_shooting": planners.random_shooting,
}
# Arguments that are no constants.
_GIVEN = ("horizon", "action_dim", "low", "high", "warm", "refine")


class BoundPlanner(NamedTuple):
  """`planner(key, score_fn, warm=Plan) -> Plan`, and the first `warm`."""

  planner: Planner
  empty_plan: Plan


def default_constants() -> dict[str, dict[str, float]]:
  """Returns every planner's constants and their defaults, by name."""
  constants = {}
  for name, planner in PLANNERS.items():
    parameters = inspect.signature(planner).parameters.values()
    constants[name] = {
      p.name: p.default
      for p in parameters
      if p.kind is p.KEYWORD_ONLY and p.name not in _GIVEN
    }
  return constants


def bind_planner(config: Mapping, action_dim: int) -> BoundPlanner:
  """Binds the planner that `config` describes.

  Args:
    config: `name`, `horizon`, `warm_start` and, under the planner's name, its
      constants.
    action_dim: `A`.

  Returns:
    The planner; without `warm_start` it ignores the plan before.

  Raises:
    ValueError: for constants that do not fit.
  """
  name, horizon = config["name"], config["horizon"]
  constants = dict(config[name])
  if constants["elites"] < 1:
    # Before it becomes the size of an array.
    raise ValueError(f"elites must be at least 1, got {constants['elites']}")
  empty = planners.empty_plan(horizon, action_dim, constants["elites"])
  bound = functools.partial(
    PLANNERS[name], horizon=horizon, action_dim=action_dim, **constants
  )
  if not config["warm_start"]:
    fresh = lambda key, score_fn, *, warm: bound(key, score_fn)
    return BoundPlanner(fresh, empty)
  return BoundPlanner(bound, empty)


def check_planner(config: Mapping) -> None:
  """Raises ValueError for constants that no plan could be made with."""
  bound = bind_planner(config, action_dim=1)
  # The shapes alone: every check runs and nothing is compiled.
  jax.eval_shape(
    lambda key, plan: bound.planner(key, lambda a, k: a.sum(), warm=plan),
    jax.random.key(0),
    bound.empty_plan,
  )
