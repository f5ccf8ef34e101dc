"""The cross-entropy method, PlaNet's planner."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from jplanet.planners import common
from jplanet.types import Array, Key, Plan, ScoreFn

Refine = Callable[[Array, Array, Array], tuple[Array, Array]]


def cem(
  key: Key,
  score_fn: ScoreFn,
  *,
  horizon: int,
  action_dim: int,
  low=-1.0,
  high=1.0,
  warm: Plan | None = None,
  candidates: int = 1000,
  elites: int = 100,
  iterations: int = 10,
  init_std: float = 1.0,
  include_mean: bool = False,
  noise_beta: float = 0.0,
  keep_elites: float = 0.0,
  refine: Refine | None = None,
) -> Plan:
  """Plans by the cross-entropy method (Hafner 2019, Algorithm 2).

  `mean <- mean of the K best`, `std^2 <- their population variance + 1e-6`,
  from mean 0 and std 1, candidates clipped before they are scored and refit.
  The defaults are the published code; every option after `iterations` departs
  from the paper.

  Args:
    key: consumed; each candidate is scored under a key of its own.
    score_fn: `(actions [H, A], key) -> []`, the return of one candidate.
      Scores that are not finite never win.
    horizon: `H`, decisions to look ahead.
    action_dim: `A`.
    low: smallest action, scalar or `[A]`, static.
    high: largest action, scalar or `[A]`, static.
    warm: the plan of the previous decision, whose first action was executed:
      its mean, shifted by one step, is where the search starts. None or
      `empty_plan` starts at the centre of the box.
    candidates: `N`, sequences per iteration.
    elites: `K`.
    iterations: rounds of sampling and refitting, at least 1 (the published
      code takes 0 too, and then does nothing at all).
    init_std: initial spread in half-widths of the box (1 in `[-1, 1]`).
    include_mean: whether candidate 0 is the mean itself.
    noise_beta: colour of the candidates, `1/f^beta` along time.
    keep_elites: fraction of the elites that take the place of candidates in
      the next iteration, and of the next decision under `warm`. They are
      scored anew, so that luck does not last.
    refine: improves the elites before each refit, as `(elites [K, H, A],
      scores [K], keys [K]) -> (elites, scores)`, best first; the keys are those
      the elites were scored with. None leaves them as they are.

  Returns:
    A `Plan` whose `actions` are its `mean`.

  Raises:
    ValueError: sizes, bounds or shapes that do not fit.
  """
  common.check_search(candidates, elites, iterations)
  bounds = common.make_bounds(horizon, action_dim, low, high)
  kept = common.count_kept(keep_elites, elites)
  if kept + include_mean > candidates:
    raise ValueError(
      f"{kept} kept elites and the mean leave no room among {candidates}"
      " candidates; lower keep_elites"
    )
  warm = common.warm_or_empty(warm, bounds, elites)
  keep_key, scan_key = jax.random.split(key)
  fresh = common.knows_nothing(warm)
  mean = common.shift(warm.mean, bounds.centre[-1])
  mean = jnp.where(fresh, bounds.centre, mean)
  std = jnp.asarray(init_std * bounds.half, jnp.float32)
  best = warm.elites
  if kept:
    drawn = common.sample(keep_key, mean, std, bounds, elites, noise_beta)
    old = common.shift(warm.elites, drawn[:, -1])
    best = jnp.where(fresh, drawn, old)

  def iterate(carry, key):
    mean, std, best = carry
    sample_key, score_key = jax.random.split(key)
    actions = common.sample(
      sample_key, mean, std, bounds, candidates, noise_beta
    )
    if include_mean:
      actions = actions.at[0].set(mean)
    if kept:
      actions = actions.at[-kept:].set(best[:kept])
    scores, keys = common.evaluate(score_key, score_fn, actions)
    top, index = jax.lax.top_k(scores, elites)
    best = actions[index]
    if refine is not None:
      best, top = refine(best, top, keys[index])
    mean, std, score = common.refit(best, top)
    return (mean, std, best), score

  keys = jax.random.split(scan_key, iterations)
  (mean, std, best), scores = jax.lax.scan(iterate, (mean, std, best), keys)
  return Plan(actions=mean, score=scores[-1], mean=mean, std=std, elites=best)
