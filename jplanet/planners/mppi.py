"""MPPI: a weighted mean in place of a hard choice of elites."""

import jax
import jax.numpy as jnp

from jplanet.planners import common
from jplanet.types import Array, Key, Plan, ScoreFn

# Scores closer than this are ties; keeps the standardisation from dividing 0/0.
_TINY = 1e-8


def mppi_weights(scores: Array, temperature: float) -> Array:
  """Returns `softmax((s - max s) / (temperature * std(s)))` for `[K]` scores.

  Standardised, so that the scale of a task's reward does not decide how greedy
  the planner is. Scores of -inf get no weight; if all are -inf, or all equal,
  the weights are uniform.
  """
  valid = common.countable(scores)
  values = jnp.where(jnp.isfinite(scores), scores, 0.0)
  std = jnp.std(values, where=valid)
  logits = values / jnp.maximum(temperature * std, _TINY)
  return jax.nn.softmax(logits, where=valid)


def mppi(
  key: Key,
  score_fn: ScoreFn,
  *,
  horizon: int,
  action_dim: int,
  low=-1.0,
  high=1.0,
  warm: Plan | None = None,
  candidates: int = 512,
  elites: int = 64,
  iterations: int = 6,
  temperature: float = 0.5,
  init_std: float = 2.0,
  min_std: float = 0.05,
  max_std: float = 2.0,
  noise_beta: float = 0.0,
) -> Plan:
  """Plans by model predictive path integral control (Williams 2015).

  In the form of TD-MPC2 (Hansen 2024): `mean <- sum_k w_k a_k` and
  `std^2 <- sum_k w_k (a_k - mean)^2` over the `K` best candidates, with
  standardised scores (see `mppi_weights`).

  Args:
    key: consumed; each candidate is scored under a key of its own.
    score_fn: `(actions [H, A], key) -> []`, the return of one candidate.
    horizon: `H`, decisions to look ahead.
    action_dim: `A`.
    low: smallest action, scalar or `[A]`, static.
    high: largest action, scalar or `[A]`, static.
    warm: the plan of the previous decision; its mean is shifted, the centre of
      the box appended, and is also candidate 0.
    candidates: `N`, sequences per iteration.
    elites: `K`, sequences that get a weight; `candidates` for plain MPPI.
    iterations: rounds of sampling and weighting, at least 1.
    temperature: lambda, in standard deviations of the elites' scores.
    init_std: initial spread in half-widths of the box.
    min_std: smallest spread, in half-widths.
    max_std: largest spread, in half-widths.
    noise_beta: colour of the candidates, `1/f^beta` along time.

  Returns:
    A `Plan` whose `actions` are its `mean`.

  Raises:
    ValueError: sizes, bounds or shapes that do not fit.
  """
  common.check_search(candidates, elites, iterations)
  if temperature <= 0:
    raise ValueError(f"temperature must be positive, got {temperature}")
  if not 0 < min_std <= max_std:
    raise ValueError(
      f"expected 0 < min_std <= max_std, got {min_std} and {max_std}"
    )
  bounds = common.make_bounds(horizon, action_dim, low, high)
  warm = common.warm_or_empty(warm, bounds, elites)
  mean = common.shift(warm.mean, bounds.centre[-1])
  mean = jnp.where(common.knows_nothing(warm), bounds.centre, mean)
  std = jnp.asarray(init_std * bounds.half, jnp.float32)

  def iterate(carry, key):
    mean, std, _ = carry
    sample_key, score_key = jax.random.split(key)
    actions = common.sample(
      sample_key, mean, std, bounds, candidates, noise_beta
    )
    actions = actions.at[0].set(mean)
    scores, _ = common.evaluate(score_key, score_fn, actions)
    top, index = jax.lax.top_k(scores, elites)
    best = actions[index]
    weights = mppi_weights(top, temperature)
    mean, std, score = common.refit(best, top, weights)
    std = jnp.clip(std, min_std * bounds.half, max_std * bounds.half)
    return (mean, std, best), score

  keys = jax.random.split(key, iterations)
  (mean, std, best), scores = jax.lax.scan(
    iterate, (mean, std, warm.elites), keys
  )
  return Plan(actions=mean, score=scores[-1], mean=mean, std=std, elites=best)
