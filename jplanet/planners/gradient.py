"""GradCEM: the cross-entropy method with elites refined by gradient."""

import jax
import jax.numpy as jnp
import optax

from jplanet.planners import common
from jplanet.planners.cem import cem
from jplanet.types import Array, Key, Plan, ScoreFn


def ascend(
  actions: Array,
  score: Array,
  key: Key,
  score_fn: ScoreFn,
  bounds: common.Bounds,
  *,
  steps: int,
  learning_rate: float,
) -> tuple[Array, Array]:
  """Improves one sequence by projected Adam ascent on its score.

  The key stays the same throughout, so that the model's noise cannot pass for
  progress.

  Args:
    actions: `[H, A]`, the start.
    score: `[]`, its score under `key`.
    key: the key that `actions` were scored with.
    score_fn: `(actions [H, A], key) -> []`.
    bounds: clipped to after each step.
    steps: how many. Gradients that are not finite count as 0.
    learning_rate: in half-widths of the box per step.

  Returns:
    The refined sequence and its score, or the start where it did not improve.
  """
  # Adam's first steps have the size of the learning rate whatever the scale of
  # the reward, and an eps far below any gradient keeps it so.
  adam = optax.scale_by_adam(eps=1e-12)
  score_at = lambda a: jnp.asarray(score_fn(a, key), jnp.float32)
  gradient = jax.grad(score_at)

  def step(carry, _):
    point, state = carry
    grad = gradient(point)
    grad = jnp.where(jnp.isfinite(grad), grad, 0.0)
    update, state = adam.update(grad, state)
    point = point + learning_rate * bounds.half * update
    return (jnp.clip(point, bounds.low, bounds.high), state), None

  start = (actions, adam.init(actions))
  (refined, _), _ = jax.lax.scan(step, start, None, length=steps)
  new = common.clean(score_at(refined))
  better = new > score
  return (
    jnp.where(better, refined, actions),
    jnp.where(better, new, score),
  )


def gradient_plan(
  key: Key,
  score_fn: ScoreFn,
  *,
  horizon: int,
  action_dim: int,
  low=-1.0,
  high=1.0,
  warm: Plan | None = None,
  candidates: int = 100,
  elites: int = 10,
  iterations: int = 3,
  steps: int = 5,
  learning_rate: float = 0.05,
  init_std: float = 1.0,
  include_mean: bool = True,
  noise_beta: float = 0.0,
  keep_elites: float = 0.3,
) -> Plan:
  """Plans by CEM with gradient steps on each elite before every refit.

  GradCEM (Bharadhwaj 2020), with a refined elite kept only if it scores
  better. `score_fn` must be differentiable in the actions. PlaNet itself does
  not back-propagate into actions: long roll-outs make such gradients wild,
  which is what the sampling around them is for.

  Args:
    key: consumed; each candidate is scored under a key of its own.
    score_fn: `(actions [H, A], key) -> []`, the return of one candidate.
    horizon: `H`, decisions to look ahead.
    action_dim: `A`.
    low: smallest action, scalar or `[A]`, static.
    high: largest action, scalar or `[A]`, static.
    warm: the plan of the previous decision, as in `cem`.
    candidates: `N`, sequences per iteration.
    elites: `K`, sequences refined and refit.
    iterations: rounds of sampling, refining and refitting, at least 1.
    steps: gradient steps per elite and iteration, at least 1.
    learning_rate: of Adam, in half-widths of the box.
    init_std: initial spread in half-widths of the box.
    include_mean: whether candidate 0 is the mean itself.
    noise_beta: colour of the candidates, `1/f^beta` along time.
    keep_elites: fraction of the refined elites kept, as in `cem`.

  Returns:
    A `Plan` whose `actions` are its `mean`, that of the refined elites.

  Raises:
    ValueError: sizes, bounds or shapes that do not fit.
  """
  if steps < 1:
    raise ValueError(f"steps must be at least 1, got {steps}")
  bounds = common.make_bounds(horizon, action_dim, low, high)

  def refine(best: Array, top: Array, keys: Array) -> tuple[Array, Array]:
    def one(actions, score, key):
      return ascend(
        actions, score, key, score_fn, bounds,
        steps=steps, learning_rate=learning_rate,
      )  # fmt: skip

    best, top = jax.vmap(one)(best, top, keys)
    # The ascent may change the ranking; what is kept are the first elites.
    order = jnp.argsort(-top)
    return best[order], top[order]

  return cem(
    key, score_fn, horizon=horizon, action_dim=action_dim, low=low, high=high,
    warm=warm, candidates=candidates, elites=elites, iterations=iterations,
    init_std=init_std, include_mean=include_mean, noise_beta=noise_beta,
    keep_elites=keep_elites, refine=refine,
  )  # fmt: skip
