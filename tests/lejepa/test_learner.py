from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jlejepa
from jlejepa.encoders import from_function, make_projector
from jlejepa.learner import (
  LossOptions,
  init_state,
  make_train_step,
  probe_loss,
)
from jlejepa.model import Model, project
from jlejepa.optimizers import make_optimizer, make_schedule
from jlejepa.views import Views

# Tests share programs.

B, D, C = 16, 6, 3
OPTIONS = LossOptions(
  lam=0.1,
  num_slices=8,
  t_max=3.0,
  num_points=17,
  test=None,
  sampler=jlejepa.random_directions,
  average=0.0,
)


def make_model(layers=2):
  encoder = from_function(
    lambda key, x: {"w": jax.random.normal(key, (4, D))},
    lambda params, x: jnp.tanh(x @ params["w"]),
  )
  return Model(encoder, make_projector(layers=layers, hidden=8, out=D))


def make_views(key, x):
  noise = jax.random.normal(key, (3, 4))
  views = x + 0.1 * noise
  return Views(views[:2], views[2:])


def make_run(options=OPTIONS, model=None, optimizer=None, classes=C):
  model = model or make_model()
  optimizer = optimizer or make_optimizer(1e-2, total_steps=100)
  # As one program: it is many small operations.
  init = partial(
    init_state,
    model=model,
    optimizer=optimizer,
    num_classes=classes,
    average=options.average,
  )
  state = jax.jit(lambda key: init(key, images=jnp.zeros((2, 4))))(
    jax.random.key(0)
  )
  return state, jax.jit(make_train_step(model, optimizer, make_views, options))


@pytest.fixture(scope="module")
def batch():
  x = jax.random.normal(jax.random.key(5), (B, 4))
  return x, jnp.argmax(x[:, :C], axis=1)


@pytest.mark.slow
def test_the_first_step_is_the_gradient_of_the_loss(batch):
  model, optimizer = make_model(), optax.sgd(0.5)
  state, step = make_run(model=model, optimizer=optimizer)
  key = jax.random.key(9)
  new, metrics = step(state, *batch, key)
  view_key, path_key, slice_key = jax.random.split(
    jax.random.fold_in(key, 0), 3
  )
  views = jax.vmap(make_views)(jax.random.split(view_key, B), batch[0])

  @jax.jit
  @jax.grad
  def gradient(networks):
    seen = project(model, networks, state.batch_stats, views, path_key)
    return jlejepa.lejepa_loss(
      seen.projections, slice_key, num_global=2, lam=0.1, num_slices=8
    )[0]

  networks = {k: state.params[k] for k in ("encoder", "projector")}
  for name, tree in gradient(networks).items():
    for g, old, after in zip(
      *map(jax.tree.leaves, (tree, state.params[name], new.params[name]))
    ):
      wanted = np.asarray(old - 0.5 * g)
      np.testing.assert_allclose(np.asarray(after), wanted, atol=1e-5)
  assert int(new.step) == 1 and int(new.skipped) == 0
  assert metrics["loss"] == pytest.approx(
    float(0.9 * metrics["prediction"] + 0.1 * metrics["sigreg"]), rel=1e-5
  )


def test_labels_never_reach_the_encoder(batch):
  state, step = make_run()
  x, labels = batch
  one = step(state, x, labels, jax.random.key(1))[0].params
  other = step(state, x, (labels + 1) % C, jax.random.key(1))[0].params
  for name in ("encoder", "projector"):
    for a, b in zip(jax.tree.leaves(one[name]), jax.tree.leaves(other[name])):
      np.testing.assert_array_equal(a, b)
  assert not np.array_equal(one["probe"]["bias"], other["probe"]["bias"])


def test_supervised_training_learns_from_labels_alone(batch):
  state, step = make_run(OPTIONS._replace(supervised=True))
  first = None
  for _ in range(60):
    state, metrics = step(state, *batch, jax.random.key(1))
    first = first or metrics
  assert metrics["probe_loss"] < 0.85 * first["probe_loss"]
  unchanged = make_run(OPTIONS._replace(supervised=True))[0]
  moved = jnp.abs(
    state.params["encoder"]["w"] - unchanged.params["encoder"]["w"]
  )
  assert moved.max() > 0.05


def test_the_same_key_gives_the_same_bits_and_each_step_its_own_views(batch):
  state, step = make_run()
  a, metrics = step(state, *batch, jax.random.key(1))
  b, again = step(state, *batch, jax.random.key(1))
  jax.tree.map(np.testing.assert_array_equal, a, b)
  later, other = step(a.replace(params=state.params), *batch, jax.random.key(1))
  assert metrics["prediction"] == again["prediction"] != other["prediction"]
  assert int(later.step) == 2
  assert step._cache_size() == 1


def test_a_bad_batch_leaves_everything_but_the_counters(batch):
  state, step = make_run(OPTIONS._replace(average=0.9))
  good, _ = step(state, *batch, jax.random.key(1))
  x = batch[0].at[3, 1].set(jnp.nan)
  bad, _ = step(good, x, batch[1], jax.random.key(1))
  assert int(bad.skipped) == 1 and int(bad.step) == 2
  for name in ("params", "batch_stats", "opt_state"):
    jax.tree.map(
      np.testing.assert_array_equal, getattr(good, name), getattr(bad, name)
    )
  assert all(np.isfinite(x).all() for x in jax.tree.leaves(bad.average))
  assert int(step(bad, *batch, jax.random.key(1))[0].skipped) == 0


@pytest.mark.slow
def test_an_averaged_copy_makes_the_centre(batch):
  assert make_run()[0].average is None
  model = make_model()
  state, step = make_run(
    OPTIONS._replace(average=0.99), model=model, optimizer=optax.sgd(0.5)
  )
  networks = {k: state.params[k] for k in ("encoder", "projector")}
  jax.tree.map(np.testing.assert_array_equal, state.average, networks)
  # A copy unlike the weights, or the one could pass for the other.
  teacher = jax.tree.map(lambda x: 1.2 * x, state.average)
  state = state.replace(average=teacher)
  new, metrics = step(state, *batch, jax.random.key(9))
  view_key, path_key, slice_key = jax.random.split(
    jax.random.fold_in(jax.random.key(9), 0), 3
  )
  views = jax.vmap(make_views)(jax.random.split(view_key, B), batch[0])
  # It sees the global views alone, and they are a batch of their own.
  see = jax.jit(partial(project, model))
  alone = views._replace(local=views.local[:, :0])
  projections = see(teacher, state.batch_stats, alone, path_key).projections
  centre = np.float64(projections).mean(axis=0)

  @jax.jit
  @partial(jax.value_and_grad, has_aux=True)
  def loss(networks, centre):
    z = project(model, networks, state.batch_stats, views, path_key).projections
    regulariser = jlejepa.sigreg(z, slice_key, num_slices=8)
    return 0.9 * jnp.mean((z - centre) ** 2) + 0.1 * regulariser, z

  (value, z), gradient = loss(networks, np.float32(centre))
  prediction = np.mean((np.float64(z) - centre) ** 2)
  np.testing.assert_allclose(metrics["prediction"], prediction, rtol=1e-5)
  np.testing.assert_allclose(metrics["loss"], value, rtol=1e-5)
  # No gradient through the centre, which is a constant above.
  moved = jax.tree.map(lambda x, g: x - 0.5 * g, networks, gradient)
  close = partial(np.testing.assert_allclose, atol=1e-5)
  jax.tree.map(close, {k: new.params[k] for k in moved}, moved)
  # The first update keeps a tenth of the copy: (1 + 0) / (10 + 0).
  mixed = jax.tree.map(lambda x, y: 0.1 * x + 0.9 * y, teacher, moved)
  jax.tree.map(close, new.average, mixed)


def test_probe_loss_counts_known_labels_only():
  params = {"kernel": jnp.eye(2, 3), "bias": jnp.zeros(3)}
  embedding = jnp.array([[[1.0, -1.0]], [[-1.0, 1.0]], [[1.0, -1.0]]])
  loss, accuracy = probe_loss(params, embedding, jnp.array([0, 0, -1]))
  # Standardised rows are (1, -1) and (-1, 1); logits have a third entry 0.
  total = np.log(np.exp(1) + np.exp(-1) + 1)
  np.testing.assert_allclose(loss, (total - 1 + total + 1) / 2, rtol=1e-4)
  assert accuracy == 0.5


def test_the_schedule_rises_then_falls_to_a_thousandth():
  schedule = make_schedule(
    1e-2, total_steps=110, warmup_steps=10, final_scale=1e-3
  )
  assert schedule(0) == pytest.approx(1e-4, rel=1e-4)
  assert schedule(10) == pytest.approx(1e-2, rel=1e-4)
  assert schedule(60) == pytest.approx((1e-2 + 1e-5) / 2, rel=1e-3)
  assert schedule(110) == pytest.approx(1e-5, rel=1e-3)


def test_clipping_leaves_the_probe_alone():
  params = {"encoder": {"w": jnp.ones(2)}, "probe": {"kernel": jnp.ones(2)}}
  grads = {
    "encoder": {"w": 1e3 * jnp.ones(2)},
    "probe": {"kernel": jnp.ones(2)},
  }
  make = partial(make_optimizer, 1e-2, total_steps=10, weight_decay=0.0)
  results = []
  for clip in (0.0, 1e-9):
    optimizer = make(clip_norm=clip)
    results.append(optimizer.update(grads, optimizer.init(params), params)[0])
  np.testing.assert_array_equal(
    results[0]["probe"]["kernel"], results[1]["probe"]["kernel"]
  )
  np.testing.assert_allclose(results[0]["probe"]["kernel"], -1e-3, rtol=1e-4)
  # Adam divides the clipped gradient of 1e-9 by itself plus its epsilon.
  assert abs(results[1]["encoder"]["w"][0]) < 0.2 * 1e-2


def test_a_warm_up_longer_than_the_run_is_refused():
  with pytest.raises(ValueError, match="warm-up of 10 steps"):
    make_optimizer(1e-3, total_steps=10, warmup_steps=10)
