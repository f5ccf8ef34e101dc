"""Fault 21: wrong input to the model's functions, from Python."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jplanet.types import Batch
from jplanet.unroll import imagine, observe
from jplanet.world_model import make_planet

S, A, B, T = 8, 2, 3, 4
KINDS = ("rssm", "ssm", "drnn")


@pytest.fixture(scope="module")
def model(tiny_config):
  config = tiny_config()
  assert config.env.size == S  # the model's, where no other is asked for
  return make_planet(config, action_dim=A)


@pytest.fixture(scope="module")
def params(model):
  return jax.jit(model.init)(jax.random.key(0))


def image(*shape, dtype=np.uint8):
  return np.zeros(shape or (S, S, 3), dtype)


@pytest.mark.parametrize(
  "value, found",
  [
    (image(dtype=np.float32), r"float32 \[8, 8, 3\]"),
    (image(dtype=np.int32), r"int32 \[8, 8, 3\]"),
    (image(3, S, S), r"uint8 \[3, 8, 8\]"),
    (image(16, 16, 3), r"uint8 \[16, 16, 3\]"),
    (image(S, S), r"uint8 \[8, 8\]"),
    (image(S, S, 4), r"uint8 \[8, 8, 4\]"),
    (image(1, S, S, 3), r"uint8 \[1, 8, 8, 3\]"),
  ],
)
def test_an_image_that_does_not_fit(model, params, value, found):
  wanted = r"encode: image must be uint8 \[8, 8, 3\], got " + found
  for encode in (model.encode, jax.jit(model.encode)):
    with pytest.raises(ValueError, match=wanted) as error:
      encode(params, value, jax.random.key(1))
    assert "\n" not in str(error.value)
  with pytest.raises(ValueError, match=wanted):
    observe(
      model, params, value[None], np.zeros((1, A), np.float32),
      jax.random.key(1),
    )  # fmt: skip


@pytest.mark.parametrize(
  "value, found",
  [
    (np.zeros(A + 1, np.float32), r"float32 \[3\]"),
    (np.zeros((), np.float32), r"float32 \[\]"),
    (np.zeros((1, A), np.float32), r"float32 \[1, 2\]"),
    (np.zeros(A, np.int32), r"int32 \[2\]"),
    (np.zeros(A, bool), r"bool \[2\]"),
  ],
)
def test_an_action_that_does_not_fit(model, params, value, found):
  wanted = r": action must be float32 \[2\], got " + found
  state, key = model.initial(), jax.random.key(1)
  embed = model.encode(params, image(), key)
  with pytest.raises(ValueError, match="^observe" + wanted):
    model.observe(params, state, value, embed, key)
  with pytest.raises(ValueError, match="^imagine" + wanted):
    model.imagine(params, state, value, key)
  with pytest.raises(ValueError, match="^imagine" + wanted):
    imagine(model, params, state, value[None], key)


@pytest.mark.parametrize(
  "change, wanted",
  [
    (
      dict(image=image(B, T, S, S, 3, dtype=np.float32)),
      r"image must be uint8",
    ),
    (
      dict(image=image(B, T, 3, S, S)),
      r"image must be uint8 \[3, 4, 8, 8, 3\]",
    ),
    (dict(image=image(B, T - 1, S, S, 3)), r"image .* got uint8 \[3, 3, 8,"),
    (dict(action=np.zeros((B, T, 1), np.float32)), r"action .*\[3, 4, 2\]"),
    (dict(action=np.zeros((T, B, A), np.float32)), r"action .* \[4, 3, 2\]"),
    (dict(reward=np.zeros((B, T, 1), np.float32)), r"reward .*\[B, T\]"),
    (dict(reward=np.zeros(T, np.float32)), r"reward must .* float32 \[4\]"),
    (dict(reward=np.zeros((B, T), int)), r"reward must be float32 \[3, 4\]"),
  ],
)
def test_a_batch_that_does_not_fit(model, params, change, wanted):
  batch = Batch(
    image=image(B, T, S, S, 3),
    action=np.zeros((B, T, A), np.float32),
    reward=np.zeros((B, T), np.float32),
  )._replace(**change)
  with pytest.raises(ValueError, match=rf"^loss: batch\.{wanted}") as error:
    jax.eval_shape(model.loss, params, batch, jax.random.key(1))
  assert "\n" not in str(error.value)


def test_sequences_of_two_lengths(model, params):
  actions = np.zeros((T, A), np.float32)
  with pytest.raises(ValueError, match=r"3 images and 4 actions"):
    observe(model, params, image(3, S, S, 3), actions, jax.random.key(1))


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_what_fits_is_taken(tiny_config, kind):
  config = tiny_config(f"model.kind={kind}", "loss.overshooting_scale=0")
  model = make_planet(config, action_dim=A, image_size=S)
  params = jax.jit(model.init)(jax.random.key(0))
  rng = np.random.default_rng(0)
  batch = Batch(
    image=rng.integers(0, 256, (B, T, S, S, 3), np.uint8),
    action=rng.uniform(-1, 1, (B, T, A)),  # float64 becomes float32
    reward=rng.normal(size=(B, T)).astype(np.float32),
  )
  key = jax.random.key(1)
  assert jnp.isfinite(jax.jit(model.loss)(params, batch, key)[0])
  states = jax.jit(lambda p, b: observe(model, p, b.image, b.action, key))(
    params, jax.tree.map(lambda x: x[0], batch)
  )
  assert all(jnp.isfinite(x).all() for x in jax.tree.leaves(states))
