"""Latent overshooting: train the prior on predictions several steps long.

Section 4 and equation 7 of the paper. Generic over a cell: only a function for
one step of the prior and one that reads `(mean, std)` from a state come in.

Column `t` starts from the posterior of time `t - 1` and takes the actions of
times `t`, `t + 1` and so on; its row `k` is the `k + 1`-step prior for time
`t + k`. The last columns of a sequence are shorter than the others, so two of
them, one after the other, share one lane of the computation: of 50 columns with
up to 50 rows 26 lanes are left. The lanes of all sequences advance side by side
on one axis, so that the gradient of a kernel is one product of two matrices.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jplanet import gaussian
from jplanet.loops import steps_per_turn
from jplanet.types import Array, Key, State

ImagineStep = Callable[[State, Array, Key | None], State]


class Cells(NamedTuple):
  """What the prior says of `[R, B, C]` cells: rows, sequences, lanes.

  Attributes:
    states: the priors, leading axes `[R, B, C]`.
    column: int `[R, C]`, the start `t` of each cell, the same in all sequences;
      the length of a sequence where a lane has no more columns.
    row: int `[R, C]`, its `k`.
    length: int `[B]`, of the sequences.
  """

  states: State
  column: np.ndarray
  row: np.ndarray
  length: Array

  @property
  def valid(self) -> Array:
    """Says, bool `[R, B, C]`, which times `t + k` are times of the sequence.

    The other states come from repeated last actions and mean nothing.
    """
    return (self.column + self.row)[:, None] < self.length[:, None]


def lanes(steps: int, rows: int) -> tuple[np.ndarray, np.ndarray]:
  """Puts the columns of a sequence into as few lanes of `rows` as there can be.

  Returns:
    Column and row of each cell, int `[rows, C]`.

  Raises:
    ValueError: there are more rows than times, or none.
  """
  if not 1 <= rows <= steps:
    raise ValueError(f"rows must be from 1 to {steps} times, got {rows}")
  whole = [[(t, k) for k in range(rows)] for t in range(steps - rows + 1)]
  pairs = []
  for long in range(rows - 1, (rows - 1) // 2, -1):
    second = steps - (rows - long) if 2 * long > rows else steps
    pairs.append(
      [(steps - long, k) for k in range(long)]
      + [(second, k) for k in range(rows - long)]
    )
  table = np.array(whole + pairs, np.int32)
  return table[..., 0].T, table[..., 1].T


def overshoot(
  imagine_step: ImagineStep,
  posteriors: State,
  actions: Array,
  keys: Key | None,
  *,
  distance: int,
  length: Array | None = None,
  initial: State | None = None,
) -> Cells:
  """Rolls the prior out from every posterior of a batch of sequences.

  Args:
    imagine_step: `(state, action [A], key) -> state`, one step of the prior.
    posteriors: states with leading `[B, T]`; gradients flow into those that a
      column starts from.
    actions: `[B, T, A]`; entry `t` led from time `t - 1` to time `t`.
    keys: `[B]`, consumed; `None` is handed on to every step, which then takes
      the mean.
    distance: the last row, so that there are `distance + 1` of them, at most
      `T`.
    length: int `[B]`, how many of the `T` entries are real; all when `None`.
    initial: the state before the first entry, from which column 0 starts; zeros
      when `None`.
  """
  (batch, steps), rows = actions.shape[:2], distance + 1
  column, row = lanes(steps, rows)
  count = batch * column.shape[1]
  if initial is None:
    initial = jax.tree.map(lambda x: jnp.zeros_like(x[0, 0]), posteriors)
  starts = jax.tree.map(
    lambda first, x: jnp.concatenate(
      [jnp.broadcast_to(first, (batch, 1, *first.shape)), x], axis=1
    ),
    initial,
    posteriors,
  )

  def flat(x, axis=0):
    return x.reshape(*x.shape[:axis], count, *x.shape[axis + 2 :])

  def starting(columns):
    return jax.tree.map(lambda x: flat(x[:, columns]), starts)

  first, second = starting(column[0]), starting(column[-1])
  time = np.minimum(column + row, steps - 1)
  lane_actions = flat(jnp.moveaxis(actions[:, time], 0, 1), 1)
  lane_keys = None
  if keys is not None:
    split = lambda key: jax.random.split(key, column.shape)
    lane_keys = flat(jnp.swapaxes(jax.vmap(split)(keys), 0, 1), 1)
  renewed = np.tile((row == 0) & (np.arange(rows) > 0)[:, None], batch)

  def step(states, inputs):
    renewed, *inputs = inputs
    states = jax.tree.map(
      lambda new, x: jnp.where(
        renewed.reshape(-1, *[1] * (x.ndim - 1)), new, x
      ),
      second,
      states,
    )
    states = jax.vmap(imagine_step)(states, *inputs)
    return states, states

  _, states = jax.lax.scan(
    step,
    first,
    (renewed, lane_actions, lane_keys),
    unroll=steps_per_turn(rows),
  )
  states = jax.tree.map(
    lambda x: x.reshape(rows, batch, -1, *x.shape[2:]), states
  )
  length = jnp.full(batch, steps) if length is None else jnp.asarray(length)
  return Cells(states, column, row, length)


def overshooting_loss(
  imagine_step: ImagineStep,
  dist: Callable[[State], gaussian.Gaussian],
  posteriors: State,
  actions: Array,
  keys: Key | None,
  *,
  distance: int,
  length: Array | None = None,
  free_nats: float = 0.0,
  initial: State | None = None,
) -> Array:
  """Averages the multi-step divergences of each sequence (paper, equation 7).

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
    posteriors: states with leading `[B, T]`.
    actions: `[B, T, A]`.
    keys: as for `overshoot`.
    distance: D, between 2 and T.
    length: as for `overshoot`.
    free_nats: subtracted from the KL of each cell, before any average.
    initial: as for `overshoot`.

  Returns:
    float32 `[B]`, nats. Average it over the batch; its weight in a loss is the
    paper's beta, all distances together.

  Raises:
    ValueError: `distance` is out of range.
  """
  steps = actions.shape[1]
  if not 2 <= distance <= steps:
    raise ValueError(
      f"overshooting distance must be between 2 and the sequence length "
      f"{steps}, got {distance}; distance 1 is the ordinary KL, so switch "
      "overshooting off instead"
    )
  cells = overshoot(
    imagine_step,
    posteriors,
    actions,
    keys,
    distance=distance - 1,
    length=length,
    initial=initial,
  )
  # Padding may hold a std of 0. The KL must not see it even where its value is
  # thrown away: the gradient of the discarded branch would be 0 * inf = NaN.
  valid = cells.valid & (cells.row > 0)[:, None]

  def fill(mean, std):
    kept = valid[..., None]
    return jnp.where(kept, mean, 0.0), jnp.where(kept, std, 1.0)

  end = np.minimum(cells.column + cells.row, steps - 1)
  target = jax.lax.stop_gradient(jax.vmap(jax.vmap(dist))(posteriors))
  q = jax.tree.map(lambda x: jnp.swapaxes(x[:, end], 0, 1), target)
  p = jax.vmap(jax.vmap(jax.vmap(dist)))(cells.states)
  nats = gaussian.free_nats(gaussian.kl(*fill(*q), *fill(*p)), free_nats)
  count = jnp.maximum(cells.length[:, None] - cells.row[:, None], 1)
  return jnp.where(valid, nats / count, 0.0).sum((0, 2)) / (distance - 1)
