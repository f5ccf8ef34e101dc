"""The train step on a model of two weights, worked out by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jplanet.learner import init_state, make_train_step
from jplanet.types import WorldModel


def pull(params, batch, key):
  """Half the squared distance to `batch`: the gradient is `w - batch`."""
  loss = 0.5 * jnp.square(params["w"] - batch).sum()
  return loss, {"loss": loss, "noise": jax.random.uniform(key)}


MODEL = WorldModel(
  **dict.fromkeys(WorldModel._fields)
  | dict(init=lambda key, images: {"w": jnp.zeros(2)}, loss=pull)
)
SGD = optax.sgd(0.5)
KEY = jax.random.key(0)
GOOD, BAD = jnp.array([3.0, 4.0]), jnp.array([jnp.nan, 0.0])


def run(batches, optimizer=SGD, **options):
  state = init_state(KEY, MODEL, optimizer, **options)
  step, rows = jax.jit(make_train_step(MODEL, optimizer, **options)), []
  for batch in batches:
    state, metrics = step(state, batch, KEY)
    rows.append(metrics)
  return state, rows


def test_a_step_descends_and_reports_the_norm_of_the_gradient():
  # Gradient (-3, -4) of norm 5; half of it is taken: (1.5, 2), loss 12.5.
  state, (row,) = run([GOOD])
  np.testing.assert_allclose(state.params["w"], [1.5, 2.0])
  np.testing.assert_allclose([row["grad_norm"], row["loss"]], [5.0, 12.5])
  assert int(state.updates) == 1 and int(state.skipped) == 0


def test_the_norm_is_that_before_clipping():
  clipped = optax.chain(optax.clip_by_global_norm(1.0), SGD)
  state, (row,) = run([GOOD], clipped)
  np.testing.assert_allclose(row["grad_norm"], 5.0)
  np.testing.assert_allclose(state.params["w"], [0.3, 0.4], rtol=1e-6)


def test_a_bad_gradient_once_is_skipped_and_counted():
  adam = optax.adam(0.1)
  before, _ = run([GOOD], adam)
  after, _ = run([GOOD, BAD], adam)
  assert int(after.updates) == 2 and int(after.skipped) == 1
  jax.tree.map(
    np.testing.assert_array_equal,
    (before.params, before.opt_state),
    (after.params, after.opt_state),
  )
  more, _ = run([GOOD, BAD, BAD], adam)
  assert int(more.skipped) == 2
  recovered, _ = run([GOOD, BAD, GOOD], adam)
  assert int(recovered.skipped) == 0 and int(recovered.updates) == 3
  straight, _ = run([GOOD, GOOD], adam)
  np.testing.assert_array_equal(recovered.params["w"], straight.params["w"])


def test_a_loss_that_is_not_finite_is_skipped_although_its_gradient_is():
  def loss(params, batch, key):
    # log(0) is -inf, but its argument does not depend on the weights.
    value = params["w"].sum() + jnp.log(batch)
    return value, {"loss": value}

  model = MODEL._replace(loss=loss)
  state = init_state(KEY, model, SGD)
  new, _ = make_train_step(model, SGD)(state, jnp.zeros(()), KEY)
  np.testing.assert_array_equal(new.params["w"], state.params["w"])
  assert int(new.skipped) == 1


def test_every_update_has_a_key_of_its_own_that_a_resume_finds_again():
  _, rows = run([GOOD, GOOD, GOOD])
  noises = [float(row["noise"]) for row in rows]
  assert len(set(noises)) == 3
  # The key comes from the counter, so the third update alone has the third.
  state, _ = run([GOOD, GOOD])
  _, row = make_train_step(MODEL, SGD)(state, GOOD, KEY)
  assert float(row["noise"]) == noises[2]


def test_averaged_weights_follow_and_are_those_to_act_with():
  state, _ = run([GOOD], ema=0.99)
  # d = min(0.99, 1 / 10): a tenth of the old (0, 0), nine of the new.
  np.testing.assert_allclose(state.average["w"], [1.35, 1.8], rtol=1e-6)
  assert state.acting_params is state.average
  plain, _ = run([GOOD])
  assert plain.average is None and plain.acting_params is plain.params


def test_the_state_can_be_donated():
  step = jax.jit(make_train_step(MODEL, SGD, ema=0.9), donate_argnums=0)
  state = init_state(KEY, MODEL, SGD, ema=0.9)
  for _ in range(2):
    state, _ = step(state, GOOD, KEY)
  assert np.isfinite(state.params["w"]).all() and step._cache_size() == 1
