"""Planners: search for the actions that a model predicts to pay most.

All have one signature,
`planner(key, score_fn, *, horizon, action_dim, low, high, warm, ...) -> Plan`,
and know the model only as `score_fn(actions [H, A], key) -> []`.
"""

from jplanet.planners.cem import cem
from jplanet.planners.common import empty_plan, shift
from jplanet.planners.gradient import gradient_plan
from jplanet.planners.icem import icem
from jplanet.planners.mppi import mppi
from jplanet.planners.noise import coloured_noise
from jplanet.planners.shooting import random_shooting

__all__ = [
  "cem",
  "coloured_noise",
  "empty_plan",
  "gradient_plan",
  "icem",
  "mppi",
  "random_shooting",
  "shift",
]
