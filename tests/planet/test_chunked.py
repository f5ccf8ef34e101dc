"""A mean over time in parts: the same value and gradient, in less memory."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jlejepa.runtime.config import load_config
from jplanet import chunked
from jplanet.chunked import computed_once, mean_loss
from jplanet.types import Batch
from jplanet.world_model import make_planet

KEYS = jax.random.split(jax.random.key(0), 3)
PARAMS = {"w": jax.random.normal(KEYS[0], (5, 4)), "b": jnp.ones(4)}
INPUTS = jax.random.normal(KEYS[1], (3, 8, 5))
TARGETS = jax.random.normal(KEYS[2], (3, 8, 4))


def loss(params, inputs, targets):
  made = jnp.tanh(inputs @ params["w"] + params["b"])
  return jnp.square(made - targets).sum(-1).mean()


# All at once; 4 steps of 8; 5 have no equal part, so 4; one step at a time.
@pytest.mark.parametrize("values", [96, 48, 60, 12, 1])
def test_parts_give_the_mean_and_its_gradient(monkeypatch, values):
  monkeypatch.setattr(chunked, "VALUES", values)

  def scaled(params, inputs):
    return 3 * mean_loss(loss, params, inputs, TARGETS)

  evaluate = jax.value_and_grad(scaled, (0, 1))
  for got, expected in zip(
    jax.tree.leaves(evaluate(PARAMS, INPUTS)),
    jax.tree.leaves(
      jax.value_and_grad(lambda p, x: 3 * loss(p, x, TARGETS), (0, 1))(
        PARAMS, INPUTS
      )
    ),
    strict=True,
  ):
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)
  value = scaled(PARAMS, INPUTS)
  np.testing.assert_allclose(value, 3 * loss(PARAMS, INPUTS, TARGETS), 1e-5)


def test_a_prime_number_of_steps_goes_one_by_one(monkeypatch):
  monkeypatch.setattr(chunked, "VALUES", 48)
  short = (PARAMS, INPUTS[:, :7], TARGETS[:, :7])
  got = mean_loss(loss, *short)
  np.testing.assert_allclose(got, loss(*short), rtol=1e-5)


def test_an_accelerator_takes_all_at_once(monkeypatch):
  monkeypatch.setattr(chunked, "VALUES", 1)
  trace = lambda: str(
    jax.make_jaxpr(lambda p: mean_loss(loss, p, INPUTS, TARGETS))(PARAMS)
  )
  assert "custom_vjp" in trace()
  monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
  assert "custom_vjp" not in trace()


@pytest.mark.parametrize("steps", [1, 6, 7])
def test_what_is_computed_once_is_the_same(monkeypatch, steps):
  monkeypatch.setattr(chunked, "FEW", 0)
  monkeypatch.setattr(jax, "default_backend", lambda: "cpu")
  x = jnp.arange(3 * steps * 4, dtype=jnp.uint8).reshape(3, steps, 4)
  keys = jax.random.split(jax.random.key(0), (3, steps))

  def dither(x, keys):
    noise = lambda key: jax.random.uniform(key, (4,))
    return x[..., ::-1] + jax.vmap(jax.vmap(noise))(keys)

  got = jax.jit(lambda x, keys: computed_once(dither, x, keys))(x, keys)
  np.testing.assert_array_equal(got, jax.jit(dither)(x, keys))


def test_a_loop_computes_once_where_there_is_much(monkeypatch):
  x = jnp.ones((2, 6, 2**18), jnp.uint8)  # 2^21.6 values
  trace = lambda x: str(
    jax.make_jaxpr(lambda x: computed_once(lambda x: x + 1, x))(x)
  )
  monkeypatch.setattr(jax, "default_backend", lambda: "cpu")
  assert "scan" in trace(x)
  assert "scan" not in trace(x[:1])
  monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
  assert "scan" not in trace(x)


def make_step(batch, steps):
  """The gradient of PlaNet's loss with small pictures, and its inputs."""
  config = load_config("planet.py:cpu", ["env.size=16", "model.depth=4"])
  model = make_planet(config, action_dim=1, image_size=16)
  rng = np.random.default_rng(0)
  images = rng.integers(0, 256, (batch, steps, 16, 16, 3), np.uint8)
  data = Batch(
    image=jnp.asarray(images),
    action=jnp.zeros((batch, steps, 1)),
    reward=jnp.zeros((batch, steps)),
  )
  params = jax.jit(model.init)(jax.random.key(0))
  grad = lambda params, data: jax.grad(model.loss, has_aux=True)(
    params, data, jax.random.key(1)
  )
  return grad, params, data


@pytest.mark.slow
def test_the_world_model_learns_the_same_from_parts(monkeypatch):
  grad, params, data = make_step(2, 8)
  whole, metrics = jax.jit(grad)(params, data)
  # Two steps of time at once.
  monkeypatch.setattr(chunked, "VALUES", 2 * 2 * 16 * 16 * 3)
  parts, metrics_of_parts = jax.jit(lambda *args: grad(*args))(params, data)
  for got, expected in zip(
    jax.tree.leaves((parts, metrics_of_parts)),
    jax.tree.leaves((whole, metrics)),
    strict=True,
  ):
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
@pytest.mark.skipif(
  jax.default_backend() != "cpu", reason="parts are made on a CPU only"
)
def test_memory_grows_linearly_and_holds_no_decoded_images(monkeypatch):
  def temporaries(batch, values):
    monkeypatch.setattr(chunked, "VALUES", values)
    grad, params, data = make_step(batch, 8)
    compiled = jax.jit(grad).lower(params, data).compile()
    return compiled.memory_analysis().temp_size_in_bytes

  picture = 16 * 16 * 3
  sizes = [temporaries(batch, 16 * picture) for batch in (16, 32, 64)]
  per_sequence = [(b - a) / n for a, b, n in zip(sizes, sizes[1:], (16, 32))]
  assert per_sequence[1] < 1.2 * per_sequence[0]
  # Of 64 sequences of 8 pictures all decoded ones would be this much, beside
  # the layers before.
  held = temporaries(64, 64 * 8 * picture) - sizes[2]
  assert held > 64 * 8 * picture * 4
