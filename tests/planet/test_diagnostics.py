"""State diagnostics: heads on frozen features, and measuring them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jlejepa.runtime.errors import UserError
from jplanet.diagnose import CONTEXT, measure
from jplanet.diagnostics import (
  fit_heads,
  heads_loss,
  init_heads,
  predict,
  r_squared,
  rollout_features,
  standardize,
)
from jplanet.diagnostics_data import Recorded
from jplanet.types import WorldModel

KEY = jax.random.key(0)
SIZES = {"position": 3, "velocity": 2}


def draw(seed, *shape):
  return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def test_gradient_to_the_features_is_exactly_zero():
  heads = init_heads(KEY, 6, SIZES)
  targets = {name: draw(1, 4, n) for name, n in SIZES.items()}
  x, world = draw(2, 4, 5), draw(3, 5, 6)

  def loss(world, heads):
    return heads_loss(heads, jnp.tanh(x @ world), targets)[0]

  to_world, to_heads = jax.grad(loss, argnums=(0, 1))(world, heads)
  assert (to_world == 0).all()
  for gradient in jax.tree.leaves(to_heads):
    assert (gradient != 0).any()


def test_heads_are_two_layers_with_a_relu():
  heads = init_heads(KEY, 6, SIZES, units=7)
  assert jax.tree.map(jnp.shape, heads["velocity"]) == {
    "hidden": (6, 7),
    "hidden_bias": (7,),
    "output": (7, 2),
    "output_bias": (2,),
  }
  # A bias of 1 in the first layer and -2 in the second, to be seen.
  heads = jax.tree.map(lambda x: x, heads)
  heads["velocity"]["hidden_bias"] = jnp.ones(7)
  heads["velocity"]["output_bias"] = jnp.full(2, -2.0)
  features = draw(4, 3, 6)
  p = jax.tree.map(np.asarray, heads["velocity"])
  expected = np.maximum(features @ p["hidden"] + 1, 0) @ p["output"] - 2
  batched = predict(heads, features)
  np.testing.assert_allclose(batched["velocity"], expected, atol=1e-5)
  for i in range(3):
    one = predict(heads, features[i])
    for name in SIZES:
      np.testing.assert_allclose(one[name], batched[name][i], atol=1e-6)


def test_loss_is_half_the_mean_squared_error_of_each_quantity():
  # All weights 0, so that every head predicts its output bias.
  heads = jax.tree.map(jnp.zeros_like, init_heads(KEY, 6, SIZES))
  heads["velocity"]["output_bias"] = jnp.array([1.0, 3.0])
  targets = {"position": jnp.ones((4, 3)), "velocity": jnp.zeros((4, 2))}
  loss, metrics = heads_loss(heads, draw(5, 4, 6), targets)
  # position: 1/2 * 1; velocity: 1/2 * (1 + 9) / 2 = 2.5.
  assert float(metrics["position_loss"]) == pytest.approx(0.5)
  assert float(metrics["velocity_loss"]) == pytest.approx(2.5)
  assert float(loss) == pytest.approx(3.0)


def test_bad_sizes_and_targets_are_named():
  with pytest.raises(ValueError, match="at least one quantity"):
    init_heads(KEY, 6, {})
  with pytest.raises(ValueError, match="units=0"):
    init_heads(KEY, 6, SIZES, units=0)
  heads = init_heads(KEY, 6, SIZES)
  # [4] would broadcast against [4, 2] silently.
  wrong = {"position": np.zeros((4, 3)), "velocity": np.zeros(4)}
  with pytest.raises(ValueError, match="targets must have the shapes"):
    heads_loss(heads, draw(5, 4, 6), wrong)


def held_out_r2(features, state):
  """Fits on the first three quarters and scores the rest."""
  cut = 3 * len(state) // 4
  features = standardize(features, features[:cut])
  truth = standardize(state, state[:cut])
  heads, losses = jax.jit(fit_heads)(
    KEY, features[:cut], {"state": truth[:cut]}
  )
  assert losses.shape == (1000,)
  predicted = np.asarray(predict(heads, features[cut:])["state"])
  return r_squared(truth[cut:], predicted)


def test_a_state_that_the_features_hold_linearly_is_found():
  state = draw(6, 2000, 3) * [1, 100, 0.01] + [0, 5, 9]
  mixed = state @ (draw(7, 3, 20) / np.array([[1], [100], [0.01]]))
  assert (held_out_r2(mixed, state) > 0.95).all()


def test_nothing_is_found_in_noise():
  r2 = held_out_r2(draw(8, 2000, 4), draw(9, 2000, 3))
  assert (np.abs(r2) < 0.25).all()


def test_r_squared_known_answers():
  true = np.array([[1.0, 1, 1, 5], [2, 2, 2, 5], [3, 3, 3, 5]])
  predicted = np.array([[1.0, 2, 3, 5], [2, 2, 2, 5], [3, 2, 1, 5]])
  # The true values less their mean have the squares 1, 0, 1; the third
  # column's errors 4, 0, 4: 1 - 8 / 2 = -3. The last one never changes.
  np.testing.assert_allclose(r_squared(true, predicted), [1, 0, -3, np.nan])


def test_standardize_uses_the_reference_alone():
  reference = np.array([[0.0, 7], [4, 7]])  # means 2, 7; std 2, none
  np.testing.assert_allclose(
    standardize(np.array([[6.0, 7.5]]), reference), [[2, 0.5]]
  )


def adder():
  """A model that sees the brightness of an image and adds actions to it."""
  pixel = lambda params, image, key: image[0, 0, 0].astype(jnp.float32)[None]
  return WorldModel(
    init=lambda key, images=None: {},
    initial=lambda: jnp.zeros(1),
    encode=pixel,
    observe=lambda params, state, action, embed, key: embed,
    imagine=lambda params, state, action, key: state + action,
    reward=lambda params, state: state[0],
    decode=None,
    features=lambda state: state,
    loss=lambda params, batch, key: (jnp.zeros(()), {}),
  )


def test_rollouts_start_from_the_right_frame_with_the_right_actions():
  length, horizons, context = 12, (1, 3, 20), 4
  rng = np.random.default_rng(0)
  seen = rng.integers(0, 255, length)
  actions = draw(1, length, 1)
  images = np.zeros((length, 2, 2, 3), np.uint8)
  images[:] = seen[:, None, None, None]
  rows = rollout_features(
    adder(), {}, images, actions, KEY, horizons=horizons, context=context
  )
  assert rows.shape == (5, length, 1)
  np.testing.assert_array_equal(rows[0, :, 0], seen)
  for row, h in zip(rows[1:], horizons):
    for t in range(h, length):
      expected = seen[t - h] + actions[t - h + 1 : t + 1].sum()
      np.testing.assert_allclose(row[t, 0], expected, rtol=1e-5)
  for t in range(length):
    last = min(t, context - 1)
    expected = seen[last] + actions[last + 1 : t + 1].sum()
    np.testing.assert_allclose(rows[-1, t, 0], expected, rtol=1e-5)
  with pytest.raises(ValueError, match="horizons must be 1 or more"):
    rollout_features(adder(), {}, images, actions, KEY, horizons=(0,))


def walks(episodes, length):
  """Random walks that the adder knows exactly, one of them cut short."""
  rng = np.random.default_rng(3)
  action = rng.integers(-3, 4, (episodes, length, 1))
  x = 128 + np.cumsum(action, 1)
  image = np.broadcast_to(x[..., None, None], (episodes, length, 2, 2, 3))
  valid = np.ones((episodes, length), bool)
  valid[-1, length // 2 :] = False
  states = {"x": x.astype(float), "still": np.ones((episodes, length, 2))}
  # Garbage that must not be scored.
  states["x"][~valid] = np.nan
  return Recorded(image.astype(np.uint8), np.float32(action), states, valid)


def test_measure_scores_the_second_half_on_the_same_entries():
  measured = measure(adder(), {}, walks(12, 60), KEY)
  columns = {"filtered", "open_loop_1", "open_loop_10", "open_loop_30"}
  assert set(measured.r2) == {"x[0]", "still[0]", "still[1]"}
  assert set(measured.r2["x[0]"]) == columns
  # The model is perfect; the heads interpolate where the walks overlap.
  assert min(measured.r2["x[0]"].values()) > 0.9
  assert set(measured.r2["still[1]"].values()) == {None}
  # 5 whole episodes from entry 4 + 30 on; the short one ends before.
  assert measured.entries == 5 * (60 - 34)
  assert measured.curves["x[0]"]["open_loop"].shape == (60,)


def test_measure_drops_horizons_that_no_episode_reaches():
  measured = measure(adder(), {}, walks(4, CONTEXT + 12), KEY)
  columns = ["filtered", "open_loop_1", "open_loop_10"]
  assert list(measured.r2["x[0]"]) == columns
  with pytest.raises(UserError, match="6 entries or more, and the longest"):
    measure(adder(), {}, walks(4, CONTEXT), KEY)
