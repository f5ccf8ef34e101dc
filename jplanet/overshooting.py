"""Latent overshooting: train the prior on predictions several steps long.

Section 4 and equation 7 of the paper. Generic over a cell: only a function for
one step of the prior and one that reads `(mean, std)` from a state come in.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from jplanet import gaussian
from jplanet.types import Array, Key, State

ImagineStep = Callable[[State, Array, Key | None], State]


def overshoot(
  imagine_step: ImagineStep,
  posteriors: State,
  actions: Array,
  key: Key | None,
  *,
  distance: int,
  length: Array | int | None = None,
  initial: State | None = None,
) -> tuple[State, Array]:
  """Rolls the prior out from every posterior of one sequence.

  Column `t` starts from the posterior state of time `t - 1` (gradients flow
  into it) and takes the actions of times `t`, `t + 1` and so on; its row `k` is
  the `k + 1`-step prior for time `t + k`. Columns advance side by side: the
  cost is `T * (distance + 1)` steps of the prior, `T` at a time.

  Args:
    imagine_step: `(state, action [A], key) -> state`, one step of the prior.
    posteriors: states with a leading `T`.
    actions: `[T, A]`; entry `t` led from time `t - 1` to time `t`.
    key: consumed; `None` is handed on to every step, which then takes the mean.
    distance: the last row, so that there are `distance + 1` of them.
    length: how many of the `T` entries are real; all of them when `None`.
    initial: the state before the first entry, from which column 0 starts; zeros
      when `None`.

  Returns:
    The states, leading axes `[T, distance + 1]`, and the mask, bool of that
    shape, of the cells with `t + k < length`. States outside the mask come from
    repeated last actions and mean nothing.
  """
  steps = len(actions)
  if initial is None:
    initial = jax.tree.map(lambda x: jnp.zeros_like(x[0]), posteriors)
  start = jax.tree.map(
    lambda first, x: jnp.concatenate([first[None], x[:-1]]), initial, posteriors
  )
  time = jnp.arange(steps)[:, None] + jnp.arange(distance + 1)
  row_actions = jnp.take(actions, jnp.minimum(time, steps - 1).T, axis=0)
  keys = None if key is None else jax.random.split(key, (distance + 1, steps))

  def row(states, inputs):
    states = jax.vmap(imagine_step)(states, *inputs)
    return states, states

  _, states = jax.lax.scan(row, start, (row_actions, keys))
  states = jax.tree.map(lambda x: jnp.swapaxes(x, 0, 1), states)
  return states, time < (steps if length is None else length)


def overshooting_loss(
  imagine_step: ImagineStep,
  dist: Callable[[State], gaussian.Gaussian],
  posteriors: State,
  actions: Array,
  key: Key | None,
  *,
  distance: int,
  length: Array | int | None = None,
  free_nats: float = 0.0,
  initial: State | None = None,
) -> Array:
  """Averages the multi-step divergences of one sequence (paper, equation 7).

  mean over d = 2..D of the mean over valid t of
  max(0, KL(sg(q(s_(t+d-1))) || p_d(s_(t+d-1))) - free_nats)

  with p_d the d-step prior from the posterior state of time `t - 1`. Distance 1
  is left out: it is the ordinary KL, which is not stop-gradiented. The target q
  is; the posterior that a prediction starts from is not. A distance without a
  valid cell (`length < d`) counts as zero. The official code averages over
  padding too and depends on TensorFlow 1 to hide its NaNs; this does neither.

  Args:
    imagine_step: as for `overshoot`.
    dist: `state -> (mean [Z], std [Z])`.
    posteriors: states with a leading `T`.
    actions: `[T, A]`.
    key: as for `overshoot`.
    distance: D, between 2 and T.
    length: as for `overshoot`.
    free_nats: subtracted from the KL of each cell, before any average.
    initial: as for `overshoot`.

  Returns:
    float32 `[]`, nats. Average it over a batch; its weight in a loss is the
    paper's beta, all distances together.

  Raises:
    ValueError: `distance` is out of range.
  """
  steps = len(actions)
  if not 2 <= distance <= steps:
    raise ValueError(
      f"overshooting distance must be between 2 and the sequence length "
      f"{steps}, got {distance}; distance 1 is the ordinary KL, so switch "
      "overshooting off instead"
    )
  states, mask = overshoot(
    imagine_step,
    posteriors,
    actions,
    key,
    distance=distance - 1,
    length=length,
    initial=initial,
  )
  time = jnp.arange(steps)[:, None] + jnp.arange(distance)
  target = jax.lax.stop_gradient(jax.vmap(dist)(posteriors))
  end = jnp.minimum(time, steps - 1)
  q = jax.tree.map(lambda x: jnp.take(x, end, axis=0), target)
  p = jax.vmap(jax.vmap(dist))(states)

  # Padding may hold a std of 0. The KL must not see it even where its value is
  # thrown away: the gradient of the discarded branch would be 0 * inf = NaN.
  def fill(mean, std):
    valid = mask[..., None]
    return jnp.where(valid, mean, 0.0), jnp.where(valid, std, 1.0)

  nats = gaussian.free_nats(gaussian.kl(*fill(*q), *fill(*p)), free_nats)
  total = jnp.where(mask, nats, 0.0).sum(0)
  count = jnp.maximum(mask.sum(0), 1)
  return (total / count)[1:].mean()
