"""Moving on when no candidate is better than another."""

import math

import jax
import jax.numpy as jnp

from jplanet.planners.common import (
  Bounds,
  evaluate,
  knows_nothing,
  sample,
  shift,
)
from jplanet.planners.noise import lag_one
from jplanet.types import Array, Key, Plan, ScoreFn

# The colour of exploration, whatever the colour of the candidates: white noise
# hardly moves a heavy body.
EXPLORE_BETA = 2.5


def check_tie_tol(tie_tol: float) -> None:
  """Raises ValueError where `tie_tol` is not a finite number >= 0."""
  if not 0 <= tie_tol < math.inf:
    raise ValueError(f"tie_tol must be finite and >= 0, got {tie_tol}")


def spread(scores: Array) -> Array:
  """Returns best minus worst finite score; -inf if no score is finite.

  The range and not the standard deviation: one candidate in a thousand that
  reaches a sparse reward is what a planner is looking for.
  """
  worst = jnp.min(jnp.where(jnp.isfinite(scores), scores, jnp.inf))
  return jnp.max(scores) - worst


def explore_if_tied(
  key: Key,
  score_fn: ScoreFn,
  plan: Plan,
  first_spread: Array,
  warm: Plan,
  bounds: Bounds,
  *,
  tie_tol: float,
  std: float,
) -> Plan:
  """Replaces the plan by a random, persistent one where scores tie.

  With a sparse reward out of reach every candidate predicts the same return,
  the elites are random, their mean is close to no action at all, and an agent
  without exploration noise stands still for ever. Any sequence is then as good
  as another, so this one commits to a single draw of the proposal: it goes on
  with the plan under way and appends one step, by the first-order recursion
  whose correlation is that of the coloured noise. Fresh draws at each decision
  would average out to a jitter on the spot.

  Candidates tie as well where all is won, a ball resting in its cup. So the
  draw is scored too, and a plan predicted to pay more than it is kept.

  Args:
    key: consumed.
    score_fn: as the planner's.
    plan: what the search found.
    first_spread: `[]`, range of the scores of the *first*, widest iteration;
      in later ones a small spread can also mean convergence.
    warm: the previous plan, or an empty one.
    bounds: of the actions.
    tie_tol: smallest difference of return worth acting on, in the units of the
      score (predicted reward summed over the horizon). It must exceed the noise
      of the reward prediction; a tenth of what one hit pays is a good start.
      0 turns exploration off.
    std: of the proposal, in half-widths of the box.

  Returns:
    `plan`, with `actions` and `mean` replaced if both `first_spread` and what
    the draw loses against `plan.score` are below `tie_tol`.
  """
  if tie_tol == 0:
    return plan
  draw_key, score_key = jax.random.split(key)
  centre, scale = jnp.asarray(bounds.centre), std * bounds.half
  rho = lag_one(centre.shape[0], EXPLORE_BETA)
  fresh = sample(draw_key, centre, scale, bounds, 1, EXPLORE_BETA)[0]
  # The last step of a stationary draw is itself standard normal noise.
  step = rho * (warm.actions[-1] - centre[-1])
  step += math.sqrt(1 - rho**2) * (fresh[-1] - centre[-1])
  onward = shift(warm.actions, centre[-1] + step)
  onward = jnp.clip(onward, bounds.low, bounds.high)
  actions = jnp.where(knows_nothing(warm), fresh, onward)
  (score,), _ = evaluate(score_key, score_fn, actions[None])
  # Not a difference: both are -inf where no score is finite.
  tied = (first_spread < tie_tol) & (score >= plan.score - tie_tol)
  return plan._replace(
    actions=jnp.where(tied, actions, plan.actions),
    mean=jnp.where(tied, actions, plan.mean),
  )
