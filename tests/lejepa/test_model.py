import jax
import numpy as np
import pytest

from jlejepa import lejepa_loss
from jlejepa.encoders import from_function, make_projector
from jlejepa.model import Model, init_model, project
from jlejepa.views import Views

B, VG, VL, D, K = 6, 2, 3, 4, 5


@pytest.fixture(scope="module")
def model():
  encoder = from_function(
    lambda key, x: {"w": jax.random.normal(key, (3, D))},
    lambda params, x: x @ params["w"],
  )
  projector = make_projector(layers=2, hidden=8, out=K)
  return Model(encoder, projector)


@pytest.fixture(scope="module")
def views():
  x = jax.random.normal(jax.random.key(1), (B, VG + VL, 3))
  return Views(x[:, :VG], x[:, VG:])


@pytest.fixture(scope="module")
def weights(model, views):
  return init_model(model, jax.random.key(0), views.global_[:, 0])


def test_views_come_first_and_global_ones_before_local(model, views, weights):
  params, stats = weights
  seen = project(model, params, stats, views, jax.random.key(2))
  assert seen.projections.shape == (VG + VL, B, K)
  assert seen.embedding.shape == (B, VG, D)
  assert seen.predictions is None
  # By hand: encode all views, normalise over all of them at once, project.
  everything = np.concatenate(views, axis=1) @ params["encoder"]["w"]
  flat, _ = model.projector.apply(
    {"params": params["projector"], "batch_stats": stats["projector"]},
    everything.reshape(-1, D),
    train=True,
  )
  wanted = np.swapaxes(np.reshape(flat, (B, VG + VL, K)), 0, 1)
  np.testing.assert_allclose(seen.projections, wanted, rtol=1e-4, atol=1e-5)
  np.testing.assert_allclose(
    seen.embedding, everything[:, :VG], rtol=1e-5, atol=1e-6
  )


def test_a_projector_of_no_layers_is_the_identity(views):
  encoder = from_function(
    lambda key, x: {"w": jax.random.normal(key, (3, D))},
    lambda params, x: x @ params["w"],
  )
  model = Model(encoder, make_projector(layers=0))
  params, stats = init_model(model, jax.random.key(0), views.global_[:, 0])
  assert not jax.tree.leaves([params["projector"], stats["projector"]])
  see = lambda params: project(model, params, stats, views, jax.random.key(2))
  seen = see(params)
  assert seen.projections.shape == (VG + VL, B, D)
  np.testing.assert_array_equal(
    seen.projections[:VG], np.swapaxes(seen.embedding, 0, 1)
  )
  # The encoder alone carries the gradient of the loss.
  loss = lambda params: lejepa_loss(
    see(params).projections, jax.random.key(3), num_global=VG, num_slices=4
  )[0]
  gradient = jax.jit(jax.grad(loss))(params)
  assert np.abs(gradient["encoder"]["w"]).max() > 0


def test_statistics_of_the_projector_move_towards_the_batch(
  model, views, weights
):
  params, stats = weights
  seen = project(model, params, stats, views, jax.random.key(2))
  before = jax.tree.leaves(stats["projector"])
  after = jax.tree.leaves(seen.batch_stats["projector"])
  assert before and any(not np.array_equal(a, b) for a, b in zip(before, after))


def test_no_local_views_is_a_batch_of_global_ones(model, views, weights):
  params, stats = weights
  alone = views._replace(local=views.local[:, :0])
  seen = project(model, params, stats, alone, jax.random.key(2))
  assert seen.projections.shape == (VG, B, K)
  assert np.isfinite(seen.projections).all()


def test_a_predictor_sees_the_projections(views, model):
  model = model._replace(predictor=make_projector(layers=1, hidden=8, out=K))
  params, stats = init_model(model, jax.random.key(0), views.global_[:, 0])
  seen = project(model, params, stats, views, jax.random.key(2))
  wanted, _ = model.predictor.apply(
    {"params": params["predictor"], "batch_stats": stats["predictor"]},
    seen.projections.reshape(-1, K),
    train=True,
  )
  np.testing.assert_allclose(
    seen.predictions.reshape(-1, K), wanted, rtol=1e-4, atol=1e-5
  )
