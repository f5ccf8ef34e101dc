from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jplanet import gaussian
from jplanet.overshooting import lanes, overshoot, overshooting_loss


class State(NamedTuple):
  mean: jax.Array
  std: jax.Array
  sample: jax.Array


ZERO = State(*[jnp.zeros(2)] * 3)


def prior_step(weight, state, action, key):
  """A nonlinear Gaussian step with one latent per action."""
  mean = jnp.tanh(weight * state.sample) + action
  std = 0.3 + 0.1 * jnp.square(state.sample)
  return State(mean, std, mean + std * gaussian.noise(key, mean.shape))


def dist(state):
  return state.mean, state.std


def sequence(seed, steps=6, size=2):
  """Random posteriors and actions of one sequence."""
  rng = np.random.default_rng(seed)
  normal = lambda: rng.normal(size=(steps, size)).astype(np.float32)
  std = rng.uniform(0.2, 1.0, size=(steps, size)).astype(np.float32)
  return State(normal(), std, normal()), normal()


def loss_of(weight, posteriors, actions, distance, **options):
  """The loss of one sequence."""
  step = lambda *args: prior_step(weight, *args)
  one = {name: options.pop(name, None) for name in ("key", "length")}
  posteriors, actions, one = jax.tree.map(
    lambda x: jnp.asarray(x)[None], (posteriors, actions, one)
  )
  return overshooting_loss(
    step, dist, posteriors, actions, one["key"],
    distance=distance, length=one["length"], **options,
  )[0]  # fmt: skip


def rolled(step, posteriors, actions, key=None, **options):
  """States of one sequence by column and row where valid, and the mask."""
  posteriors, actions, key = jax.tree.map(
    lambda x: jnp.asarray(x)[None], (posteriors, actions, key)
  )
  cells = overshoot(step, posteriors, actions, key, **options)
  states, mask = tables(cells, actions.shape[1])
  return jax.tree.map(lambda x: x[0], states), mask[0]


def tables(cells, steps):
  """Puts cells into arrays `[B, T, R, ...]`; zeros where they are not valid."""
  k, b, c = np.nonzero(cells.valid)
  place = b, cells.column[k, c], cells.row[k, c]
  rows, batch = cells.valid.shape[:2]

  def table(x):
    out = np.zeros((batch, steps, rows, *x.shape[3:]), x.dtype)
    out[place] = x[k, b, c]
    return out

  states = jax.tree.map(lambda x: table(np.asarray(x)), cells.states)
  return states, table(np.asarray(cells.valid))


@pytest.mark.parametrize("steps", [1, 2, 5, 6, 50])
def test_lanes_hold_every_cell_once_and_columns_in_order(steps):
  for rows in range(1, steps + 1):
    column, row = lanes(steps, rows)
    cells = {(int(t), int(k)) for t, k in zip(column.flat, row.flat)}
    real = {cell for cell in cells if sum(cell) < steps}
    assert len(cells) == column.size  # none twice
    assert real == {
      (t, k) for t in range(steps) for k in range(rows) if t + k < steps
    }
    # Every lane goes down a column, and at most once on to another's top.
    down = (np.diff(column, axis=0) == 0) & (np.diff(row, axis=0) == 1)
    assert (row[0] == 0).all() and (row[1:][~down] == 0).all()
    assert ((~down).sum(0) <= 1).all()
    assert column.size - len(real) == (rows // 2 if rows % 2 == 0 else 0)
  assert lanes(50, 50)[0].shape == (50, 26)


@pytest.mark.parametrize("rows", [0, 4])
def test_more_rows_than_times_are_refused(rows):
  with pytest.raises(ValueError, match=f"from 1 to 3 .* got {rows}"):
    lanes(3, rows)


def kl(m, s, n, p):
  """KL between univariate Gaussians, in numpy."""
  return np.sum(np.log(p / s) + (s**2 + (m - n) ** 2) / (2 * p**2) - 0.5)


def test_known_answers_of_the_official_mock_cell():
  # The official test: the state is the observation, a step adds the action.
  obs = jnp.array([[10, 20, 30, 40, 50, 60], [70, 80, 0, 0, 0, 0.0]])
  actions = jnp.array([[0, 0.1, 0.2, 0.3, 0.4, 0.5], [9, 0.7, 0, 0, 0, 0]])
  cells = overshoot(
    lambda state, action, _: state + action,
    obs,
    actions,
    None,
    distance=3,
    length=jnp.array([6, 2]),
  )
  prior, mask = tables(cells, 6)
  assert prior.shape == mask.shape == (2, 6, 4)
  # Rows are distances, columns are start times.
  np.testing.assert_array_equal(
    jnp.swapaxes(mask, 1, 2).astype(int),
    [
      [[1] * 6, [1] * 5 + [0], [1] * 4 + [0] * 2, [1] * 3 + [0] * 3],
      [[1, 1] + [0] * 4, [1] + [0] * 5, [0] * 6, [0] * 6],
    ],
  )
  prior = np.swapaxes(prior, 1, 2)
  np.testing.assert_allclose(
    prior[0],
    [
      [0, 10.1, 20.2, 30.3, 40.4, 50.5],
      [0.1, 10.3, 20.5, 30.7, 40.9, 0],
      [0.3, 10.6, 20.9, 31.2, 0, 0],
      [0.6, 11.0, 21.4, 0, 0, 0],
    ],
    rtol=1e-6,
  )
  np.testing.assert_allclose(
    prior[1], [[9, 70.7, 0, 0, 0, 0], [9.7] + [0] * 5, [0] * 6, [0] * 6]
  )


def test_trees_of_any_depth_run_as_in_the_official_nested_test():
  rng = np.random.default_rng(0)
  tree = lambda sizes: tuple(
    jnp.asarray(rng.normal(size=(3, 50, n))) for n in sizes
  )
  obs, actions = tree((1, 2, 3)), tree((1, 2))
  step = lambda state, action, _: jax.tree.map(lambda x: x + action, state)
  cells = overshoot(
    step, obs, actions[0], None, distance=3, length=jnp.array([49, 50, 3])
  )
  states, mask = tables(cells, 50)
  assert [x.shape for x in states] == [(3, 50, 4, n) for n in (1, 2, 3)]
  np.testing.assert_array_equal(mask[2].sum(0), [3, 2, 1, 0])
  np.testing.assert_array_equal(mask.sum((1, 2)), [190, 194, 6])


@pytest.mark.parametrize("length", [6, 4])
@pytest.mark.parametrize("distance", [2, 3, 6])
def test_loss_equals_a_loop_over_starts_and_distances(distance, length):
  posteriors, actions = sequence(1)
  weight, free = 0.8, 0.5
  per_distance = []
  for d in range(2, distance + 1):
    values = []
    for t in range(length - d + 1):
      sample = posteriors.sample[t - 1] if t else np.zeros(2)
      for action in actions[t : t + d]:
        mean = np.tanh(weight * sample) + action
        std, sample = 0.3 + 0.1 * sample**2, mean
      end = t + d - 1
      nats = kl(posteriors.mean[end], posteriors.std[end], mean, std)
      values.append(max(0, nats - free))
    per_distance.append(np.mean(values) if values else 0.0)
  result = loss_of(
    weight, posteriors, actions, distance,
    length=length, free_nats=free,
  )  # fmt: skip
  np.testing.assert_allclose(result, np.mean(per_distance), rtol=1e-5)


def test_padding_changes_nothing():
  posteriors, actions = sequence(2)
  short = jax.tree.map(lambda x: x[:4], (posteriors, actions))
  expected = loss_of(0.5, short[0], short[1], 3)
  result = loss_of(0.5, posteriors, actions, 3, length=4)
  np.testing.assert_allclose(result, expected, rtol=1e-6)


def test_padding_with_std_zero_gives_finite_values_and_gradients():
  # As a recurrent network that stops at the length leaves it; the official
  # loss is NaN here without TensorFlow 1's maximum.
  posteriors, actions = sequence(3)
  padded = jax.tree.map(lambda x: jnp.asarray(x).at[3:].set(0.0), posteriors)
  step = lambda weight, posteriors, length: loss_of(
    weight, posteriors, actions, 4,
    length=length, key=jax.random.key(0),
  )  # fmt: skip
  for length in (3, 1):
    value, grads = jax.jit(jax.value_and_grad(step, (0, 1)))(
      0.5, padded, length
    )
    assert np.isfinite(value)
    assert all(np.isfinite(g).all() for g in jax.tree.leaves(grads))
  assert value == 0  # no distance of 2 or more fits in one step


def test_counts_of_valid_cells_at_the_papers_chunk_length():
  # L = 50: sum over d = 2..50 of (51 - d) = 1225; d = 2..12 gives 484.
  for distance, expected in ((50, 1225), (12, 484)):
    posteriors, actions = jnp.zeros((50, 1)), jnp.zeros((50, 1))
    _, mask = rolled(
      lambda s, a, _: s + a, posteriors, actions, distance=distance - 1
    )
    assert mask[:, 1:].sum() == expected


def test_gradients_reach_the_start_and_not_the_target():
  posteriors, actions = sequence(4, steps=3)
  grads = jax.grad(lambda p: loss_of(0.9, p, actions, 3))(posteriors)
  # Targets are (mean, std); the chain starts from samples of steps 0 and 1.
  np.testing.assert_array_equal(grads.mean, 0)
  np.testing.assert_array_equal(grads.std, 0)
  assert np.abs(grads.sample[0]).min() > 0
  # d = 2 from t = 2 would need a fourth step.
  np.testing.assert_array_equal(grads.sample[1:], 0)


def test_a_prior_that_is_right_costs_nothing():
  _, actions = sequence(5)
  states, state = [], ZERO
  for action in actions:
    state = prior_step(0.7, state, action, None)
    states.append(state)
  truth = jax.tree.map(lambda *x: jnp.stack(x), *states)
  right = loss_of(0.7, truth, actions, 6)
  wrong = loss_of(0.6, truth, actions, 6)
  np.testing.assert_allclose(right, 0, atol=1e-6)
  assert wrong > 0.01


def test_row_zero_is_the_ordinary_prior():
  posteriors, actions = sequence(6)
  step = lambda *args: prior_step(0.7, *args)
  states, _ = rolled(step, posteriors, actions, distance=2)
  for t in range(6):
    before = ZERO
    if t:
      before = jax.tree.map(lambda x, t=t: x[t - 1], posteriors)
    expected = step(before, actions[t], None)
    np.testing.assert_allclose(states.mean[t, 0], expected.mean, rtol=1e-6)
    np.testing.assert_allclose(states.std[t, 0], expected.std, rtol=1e-6)


def test_the_chain_continues_from_samples_with_fresh_noise_in_every_cell():
  size, steps, distance = 1, 40, 9
  posteriors = State(*[jnp.zeros((steps, size))] * 3)
  actions = jnp.zeros((steps, size))
  step = lambda *args: prior_step(0.5, *args)
  states, mask = rolled(
    step, posteriors, actions, jax.random.key(0), distance=distance
  )
  noise = ((states.sample - states.mean)[mask]) / states.std[mask]
  assert len(np.unique(noise)) == mask.sum() == 400 - 45
  assert abs(noise.mean()) < 0.25 and abs(noise.std() - 1) < 0.2
  expected = np.tanh(0.5 * states.sample[:, :-1])
  np.testing.assert_allclose(
    states.mean[:, 1:][mask[:, 1:]], expected[mask[:, 1:]], rtol=1e-5
  )


def test_an_initial_state_other_than_zero_starts_the_first_column():
  states, _ = rolled(
    lambda s, a, _: s + a, jnp.zeros((3, 1)), jnp.ones((3, 1)),
    distance=2, initial=jnp.array([100.0]),
  )  # fmt: skip
  np.testing.assert_allclose(states[0, :, 0], [101, 102, 103])
  np.testing.assert_allclose(states[1, :, 0], [1, 2, 0])


def test_a_batch_equals_a_loop():
  parts = [sequence(seed) for seed in (7, 8)]
  keys = jax.random.split(jax.random.key(1), 2)
  one = lambda posteriors, actions, key: loss_of(
    0.4, posteriors, actions, 3, key=key
  )
  loop = [one(*part, key) for part, key in zip(parts, keys)]
  batch = jax.tree.map(lambda *x: jnp.stack(x), *parts)
  together = overshooting_loss(
    lambda *args: prior_step(0.4, *args), dist, *batch, keys, distance=3
  )
  np.testing.assert_allclose(together, loop, rtol=1e-5)


@pytest.mark.parametrize("distance", [-1, 0, 1, 7])
def test_distances_without_a_meaning_are_refused(distance):
  posteriors, actions = sequence(9)
  with pytest.raises(ValueError, match=f"between 2 and .* 6, got {distance}"):
    loss_of(0.5, posteriors, actions, distance)
