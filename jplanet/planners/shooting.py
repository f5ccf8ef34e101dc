"""Random shooting: the best of many sequences, without refinement."""

import jax
import jax.numpy as jnp

from jlejepa.one_pass import one_pass
from jplanet.planners import common
from jplanet.types import Key, Plan, ScoreFn


def random_shooting(
  key: Key,
  score_fn: ScoreFn,
  *,
  horizon: int,
  action_dim: int,
  low=-1.0,
  high=1.0,
  warm: Plan | None = None,
  candidates: int = 1000,
  elites: int = 1,
) -> Plan:
  """Executes the best of `N` uniformly random sequences.

  The baseline of Hafner 2019, Figure 5 (1000 sequences, one iteration).

  Args:
    key: consumed; each candidate is scored under a key of its own.
    score_fn: `(actions [H, A], key) -> []`, the return of one candidate.
    horizon: `H`, decisions to look ahead.
    action_dim: `A`.
    low: smallest action, scalar or `[A]`, static.
    high: largest action, scalar or `[A]`, static.
    warm: the plan of the previous decision; shifted, with a random last action,
      it takes the place of candidate 0.
    candidates: `N`.
    elites: `K`, how many of the best to report.

  Returns:
    A `Plan` whose `actions` are the best sequence; `mean` and `std` are those
    of the uniform distribution.

  Raises:
    ValueError: sizes, bounds or shapes that do not fit.
  """
  common.check_search(candidates, elites, 1)
  bounds = common.make_bounds(horizon, action_dim, low, high)
  warm = common.warm_or_empty(warm, bounds, elites)
  sample_key, score_key = jax.random.split(key)

  def draw(key):
    low, high = bounds.low, bounds.high
    return jax.random.uniform(one_pass(key), low.shape, minval=low, maxval=high)

  actions = jax.vmap(draw)(jax.random.split(sample_key, candidates))
  old = common.shift(warm.actions, actions[0, -1])
  first = jnp.where(common.knows_nothing(warm), actions[0], old)
  actions = actions.at[0].set(first)
  scores, _ = common.evaluate(score_key, score_fn, actions)
  top, index = jax.lax.top_k(scores, elites)
  best = actions[index]
  return Plan(
    actions=best[0],
    score=top[0],
    mean=jnp.asarray(bounds.centre),
    std=jnp.asarray(bounds.half) / jnp.sqrt(3.0),
    elites=best,
  )
