"""iCEM: a sample-efficient cross-entropy method."""

import jax
import jax.numpy as jnp

from jplanet.planners import common
from jplanet.types import Key, Plan, ScoreFn


def population_sizes(
  candidates: int, elites: int, iterations: int, decay: float
) -> list[int]:
  """Returns `N_i = max(2 K, N_0 * decay^-i)`, one size per iteration."""
  return [
    max(2 * elites, int(candidates * decay**-i)) for i in range(iterations)
  ]


def icem(
  key: Key,
  score_fn: ScoreFn,
  *,
  horizon: int,
  action_dim: int,
  low=-1.0,
  high=1.0,
  warm: Plan | None = None,
  candidates: int = 150,
  elites: int = 10,
  iterations: int = 3,
  init_std: float = 0.5,
  noise_beta: float = 2.5,
  keep_elites: float = 0.3,
  decay: float = 1.25,
  momentum: float = 0.1,
) -> Plan:
  """Plans by iCEM (Pinneri 2020, Algorithm 1).

  On top of `cem`: coloured noise, elites kept within a decision and shifted
  across decisions, a shrinking population, the mean as a candidate of the last
  iteration, momentum in the refit, and the best sequence executed rather than
  the mean. The default sizes, 150 + 120 + 96, are its budget of 366 sequences
  with PlaNet. Iterations are unrolled, because each has a size of its own.

  Args:
    key: consumed; each candidate is scored under a key of its own.
    score_fn: `(actions [H, A], key) -> []`, the return of one candidate.
    horizon: `H`, decisions to look ahead.
    action_dim: `A`.
    low: smallest action, scalar or `[A]`, static.
    high: largest action, scalar or `[A]`, static.
    warm: the plan of the previous decision. Its mean is shifted, its last step
      repeated; its best elites join the first iteration, shifted, each with a
      random last action.
    candidates: `N_0`, sequences of the first iteration, kept elites apart.
    elites: `K`.
    iterations: rounds of sampling and refitting, at least 1.
    init_std: initial spread in half-widths of the box.
    noise_beta: colour of the candidates; published for PlaNet: 0.25 for cheetah
      and cartpole, 2.5 for walker, cup, reacher and finger.
    keep_elites: fraction of the elites kept.
    decay: gamma, by which the population shrinks per iteration; at least 1.
    momentum: weight of the old mean and spread in the refit, in [0, 1).

  Returns:
    A `Plan` whose `actions` are the best sequence of the last iteration and
    whose `score` is the score of that sequence.

  Raises:
    ValueError: sizes, bounds or shapes that do not fit.
  """
  common.check_search(candidates, elites, iterations)
  if decay < 1:
    raise ValueError(f"decay must be at least 1, got {decay}")
  if not 0 <= momentum < 1:
    raise ValueError(f"momentum must lie in [0, 1), got {momentum}")
  kept = common.count_kept(keep_elites, elites)
  bounds = common.make_bounds(horizon, action_dim, low, high)
  warm = common.warm_or_empty(warm, bounds, elites)
  fresh = common.knows_nothing(warm)
  keep_key, search_key = jax.random.split(key)

  mean = jnp.where(fresh, bounds.centre, common.shift(warm.mean))
  std = jnp.asarray(init_std * bounds.half)
  drawn = common.sample(keep_key, mean, std, bounds, kept, noise_beta)
  old = common.shift(warm.elites[:kept], drawn[:, -1])
  best = jnp.where(fresh, drawn, old)

  sizes = population_sizes(candidates, elites, iterations, decay)
  for i, key in enumerate(jax.random.split(search_key, iterations)):
    sample_key, score_key = jax.random.split(key)
    actions = common.sample(sample_key, mean, std, bounds, sizes[i], noise_beta)
    if i == iterations - 1:
      actions = actions.at[0].set(mean)
    actions = jnp.concatenate([actions, best[:kept]])
    scores, _ = common.evaluate(score_key, score_fn, actions)
    top, index = jax.lax.top_k(scores, elites)
    best = actions[index]
    new_mean, new_std, _ = common.refit(best, top)
    mean = momentum * mean + (1 - momentum) * new_mean
    std = momentum * std + (1 - momentum) * new_std

  return Plan(actions=best[0], score=top[0], mean=mean, std=std, elites=best)
