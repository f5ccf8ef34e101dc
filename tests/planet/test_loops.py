"""Steps of a scan that a GPU takes as one turn of its loop."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jlejepa.runtime.config import load_config
from jplanet import loops
from jplanet.loops import steps_per_turn
from jplanet.types import Batch
from jplanet.unroll import imagine
from jplanet.world_model import make_planet


def test_only_a_gpu_takes_several_steps_at_a_turn(monkeypatch):
  steps = [0, 1, 12, 47, 49, 50]
  for backend in ("cpu", "tpu"):
    monkeypatch.setattr(jax, "default_backend", lambda b=backend: b)
    assert [steps_per_turn(n) for n in steps] == [1] * 6
  monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
  # Turns of as many steps leave none over.
  assert [steps_per_turn(n) for n in steps] == [1, 1, 12, 1, 7, 10]


@pytest.fixture(scope="module")
def model():
  options = [
    "loss.overshooting_scale=1.0",
    "loss.overshooting_distance=8",
    "model.depth=4",
    "model.belief=16",
    "model.hidden=16",
  ]
  config = load_config("planet.py:cpu", options)
  return make_planet(config, action_dim=2, image_size=32)


def batch():
  rng = np.random.default_rng(0)
  return Batch(
    image=rng.integers(0, 256, (2, 8, 32, 32, 3), np.uint8),
    action=rng.uniform(-1, 1, (2, 8, 2)).astype(np.float32),
    reward=rng.uniform(0, 1, (2, 8)).astype(np.float32),
  )


def scans(jaxpr):
  """Yields the parameters of all scans, however deep."""
  for equation in jaxpr.eqns:
    if equation.primitive.name == "scan":
      yield equation.params
    for value in jax.tree.leaves(
      tuple(equation.params.values()), is_leaf=lambda x: hasattr(x, "eqns")
    ):
      inner = getattr(value, "jaxpr", value)
      if hasattr(inner, "eqns"):
        yield from scans(inner)


@pytest.mark.slow
def test_losses_gradients_and_dreams_are_the_same(model, monkeypatch):
  params = jax.jit(model.init)(jax.random.key(0))
  key = jax.random.key(1)
  actions = jnp.asarray(batch().action[0])
  update = jax.value_and_grad(model.loss, has_aux=True)

  def dream(params):
    return imagine(model, params, model.initial(), actions, key)

  def rolled():
    """Says how many scans of 8 steps have a turn for each."""
    find = lambda f: scans(jax.make_jaxpr(f)(params).jaxpr)
    return tuple(
      sum((e["length"], e["unroll"]) == (8, 1) for e in find(f))
      # New functions, for JAX keeps what it has traced.
      for f in (lambda p: dream(p), lambda p: update(p, batch(), key))
    )

  def both():
    run = lambda p: (update(p, batch(), key), dream(p))
    return jax.jit(run)(params)

  plain, before = both(), rolled()
  monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
  monkeypatch.setattr(loops, "MOST", 4)
  turned, after = both(), rolled()
  # The RSSM's and overshooting's, forward and back.
  assert before == (1, 4) and after == (0, 0)
  for a, b in zip(jax.tree.leaves(plain), jax.tree.leaves(turned), strict=True):
    np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-5)
