"""What all planners share: bounds, scoring, elites and warm starts."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jplanet.planners.noise import coloured_noise
from jplanet.types import Array, Key, Plan, ScoreFn

VARIANCE_FLOOR = 1e-6


class Bounds(NamedTuple):
  """The box of actions, repeated along the horizon; all `[H, A]`.

  Attributes:
    low: smallest action.
    high: largest action.
    centre: middle of the box, where a fresh search starts.
    half: half of the box's width, the unit of every planner's `std`.
  """

  low: np.ndarray
  high: np.ndarray
  centre: np.ndarray
  half: np.ndarray


def make_bounds(horizon: int, action_dim: int, low, high) -> Bounds:
  """Checks and repeats the bounds; `low` and `high` are scalars or `[A]`.

  Raises:
    ValueError: horizon or action_dim below 1, or bounds that are not finite,
      not ordered or of the wrong shape.
  """
  if horizon < 1:
    raise ValueError(f"horizon must be at least 1, got {horizon}")
  if action_dim < 1:
    raise ValueError(f"action_dim must be at least 1, got {action_dim}")
  low, high = np.asarray(low, np.float32), np.asarray(high, np.float32)
  for name, value in (("low", low), ("high", high)):
    if value.shape not in ((), (action_dim,)):
      raise ValueError(
        f"{name} must be a scalar or have shape ({action_dim},), got"
        f" {value.shape}"
      )
  if not np.all(np.isfinite(low) & np.isfinite(high) & (low < high)):
    raise ValueError(
      f"bounds must be finite with low < high, got low={low}, high={high}"
    )
  shape = (horizon, action_dim)
  low, high = np.broadcast_to(low, shape), np.broadcast_to(high, shape)
  return Bounds(low, high, centre=(low + high) / 2, half=(high - low) / 2)


def check_search(candidates: int, elites: int, iterations: int) -> None:
  """Raises ValueError where a search of these sizes makes no sense."""
  if iterations < 1:
    raise ValueError(f"iterations must be at least 1, got {iterations}")
  if not 1 <= elites <= candidates:
    raise ValueError(
      "elites must lie between 1 and the number of candidates, got"
      f" elites={elites}, candidates={candidates}"
    )


def count_kept(keep_elites: float, elites: int) -> int:
  """Turns a fraction of the elites into a count; ValueError outside [0, 1]."""
  if not 0 <= keep_elites <= 1:
    raise ValueError(f"keep_elites must lie in [0, 1], got {keep_elites}")
  return round(keep_elites * elites)


def empty_plan(
  horizon: int, action_dim: int, elites: int, *, low=-1.0, high=1.0
) -> Plan:
  """Builds the plan to carry before the first decision.

  As `warm` it has the effect of a fresh start: the score of -inf marks it as
  knowing nothing.

  Args:
    horizon: steps, `H`.
    action_dim: `A`.
    elites: `K`, the planner's own number of elites.
    low: smallest action, scalar or `[A]`.
    high: largest action, scalar or `[A]`.

  Returns:
    A `Plan` at the centre of the box, one half-width of spread.
  """
  bounds = make_bounds(horizon, action_dim, low, high)
  centre = jnp.array(bounds.centre)
  return Plan(
    actions=centre,
    score=jnp.array(-jnp.inf, jnp.float32),
    mean=centre,
    std=jnp.array(bounds.half),
    elites=jnp.tile(centre[None], (elites, 1, 1)),
  )


def warm_or_empty(warm: Plan | None, bounds: Bounds, elites: int) -> Plan:
  """Returns `warm` after a check of its shapes, or an empty plan for None.

  Raises:
    ValueError: an array of `warm` has another shape than this planner's.
  """
  horizon, action_dim = bounds.low.shape
  empty = empty_plan(
    horizon, action_dim, elites, low=bounds.low[0], high=bounds.high[0]
  )
  if warm is None:
    return empty
  for name in Plan._fields:
    got = jnp.shape(getattr(warm, name))
    expected = getattr(empty, name).shape
    if got != expected:
      raise ValueError(
        f"warm.{name} has shape {got}, expected {expected}; start from"
        f" empty_plan({horizon}, {action_dim}, {elites})"
      )
  return warm


def knows_nothing(plan: Plan) -> Array:
  """Tells, as a bool `[]`, whether a plan holds nothing to start from."""
  return jnp.isneginf(plan.score)


def shift(sequence: Array, fill: Array | float | None = None) -> Array:
  """Drops the first step of `[..., H, A]` and appends one.

  Args:
    sequence: `[..., H, A]`.
    fill: the new last step, broadcast to `[..., A]`; None repeats the last.

  Returns:
    `[..., H, A]`.
  """
  last = sequence[..., -1, :]
  if fill is not None:
    fill = jnp.asarray(fill, sequence.dtype)
    last = jnp.broadcast_to(fill, last.shape)
  return jnp.concatenate([sequence[..., 1:, :], last[..., None, :]], axis=-2)


def sample(
  key: Key, mean: Array, std: Array, bounds: Bounds, count: int, beta: float
) -> Array:
  """Draws `[count, H, A]` from `N(mean, std^2)` and clips to the bounds.

  Clipped, not truncated: extreme actions keep probability.
  """

  def one(key):
    noise = coloured_noise(key, *mean.shape, beta)
    return jnp.clip(mean + std * noise, bounds.low, bounds.high)

  return jax.vmap(one)(jax.random.split(key, count))


def clean(score: Array) -> Array:
  """Replaces NaN and infinities by -inf, so that only finite scores win."""
  score = jnp.asarray(score, jnp.float32)
  return jnp.where(jnp.isfinite(score), score, -jnp.inf)


def evaluate(
  key: Key, score_fn: ScoreFn, candidates: Array
) -> tuple[Array, Array]:
  """Scores `[N, H, A]` candidates, each under a key of its own.

  Returns:
    Clean scores `[N]`, and the keys `[N]` they were computed with.

  Raises:
    ValueError: `score_fn` does not return a scalar.
  """
  keys = jax.random.split(key, candidates.shape[0])
  scores = jax.vmap(score_fn)(candidates, keys)
  if jnp.shape(scores) != candidates.shape[:1]:
    raise ValueError(
      "score_fn must return a scalar for one candidate, got shape"
      f" {jnp.shape(scores)[1:]}"
    )
  return clean(scores), keys


def refit(
  elites: Array, scores: Array, weights: Array | None = None
) -> tuple[Array, Array, Array]:
  """Fits a Gaussian to the elites whose score is finite.

  Args:
    elites: `[K, H, A]`.
    scores: `[K]`, clean. If none is finite, all elites count.
    weights: `[K]`, summing to 1, 0 where a score does not count; None weighs
      all that count alike.

  Returns:
    Mean `[H, A]`, standard deviation `[H, A]` (population variance + 1e-6) and
    the mean score `[]`, -inf if none was finite.
  """
  valid = countable(scores)
  if weights is None:
    weights = valid / valid.sum()
  mean = jnp.tensordot(weights, elites, 1, precision="highest")
  square = jnp.square(elites - mean[None])
  variance = jnp.tensordot(weights, square, 1, precision="highest")
  score = jnp.sum(weights * jnp.where(valid, scores, 0.0))
  return mean, jnp.sqrt(variance + VARIANCE_FLOOR), score


def countable(scores: Array) -> Array:
  """Marks, bool `[K]`, the finite scores; all of them if none is finite."""
  finite = jnp.isfinite(scores)
  return finite | ~finite.any()
