"""The two forms of the convolutions: the same numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from jlejepa.runtime.config import load_config
from jplanet import convolutions
from jplanet.convolutions import conv, conv_transpose, fold, unfold
from jplanet.image_networks import (
  ConvDecoder,
  ConvEncoder,
  make_image_networks,
)
from jplanet.world_model import make_planet

KEY = jax.random.key(0)
# 9 leaves a row over, 1 is where the decoder starts.
CASES = [(conv, 4, 9), (conv, 6, 8)]
CASES += [
  (conv_transpose, 5, 1),
  (conv_transpose, 5, 3),
  (conv_transpose, 6, 4),
  # Large enough for the transpose to be by XLA.
  (conv, 4, 17),
  (conv_transpose, 6, 13),
]


def plain(function):
  """What XLA calls the same."""
  if function is conv_transpose:
    return lambda x, k: lax.conv_transpose(
      x, k, (2, 2), "VALID", dimension_numbers=convolutions.DIMS
    )
  return lambda x, k: lax.conv_general_dilated(
    x, k, (2, 2), "VALID", dimension_numbers=convolutions.DIMS
  )


def forms(function, size, side, pictures=3, dtype="float32"):
  """Value and gradients by XLA alone and in both our forms, as float32."""
  keys = jax.random.split(KEY, 3)
  x = jax.random.normal(keys[0], (pictures, side, side, 5)).astype(dtype)
  kernel = jax.random.normal(keys[1], (size, size, 5, 7)).astype(dtype)
  results = []
  calls = [plain(function)]
  calls += [
    lambda x, k, p=products: function(x, k, products=p)
    for products in (False, True)
  ]
  for call in calls:
    shape = jax.eval_shape(call, x, kernel).shape
    weight = jax.random.normal(keys[2], shape).astype(dtype)
    value_and_gradients = jax.jit(
      lambda x, kernel, weight, call=call: (
        call(x, kernel),
        *jax.vjp(call, x, kernel)[1](weight),
      )
    )
    arrays = value_and_gradients(x, kernel, weight)
    results.append([np.asarray(a, np.float32) for a in arrays])
  return results


@pytest.mark.parametrize("function, size, side", CASES)
def test_both_forms_agree(monkeypatch, function, size, side):
  # From one picture at once to all of the 6.
  monkeypatch.setattr(convolutions, "VALUES", 2000)
  expected, *others = forms(function, size, side, pictures=6)
  for got in others:
    for a, b in zip(expected, got):
      np.testing.assert_allclose(b, a, rtol=1e-5, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("function, size, side", [CASES[0], *CASES[2:]])
def test_both_forms_agree_in_bfloat16(function, size, side):
  expected, *others = forms(function, size, side, dtype="bfloat16")
  for got in others:
    for a, b in zip(expected, got):
      # One step of bfloat16's eight bits, at the largest value.
      np.testing.assert_allclose(b, a, rtol=2e-2, atol=2e-2 * np.abs(a).max())


@pytest.mark.parametrize("function, size, side", [CASES[0], *CASES[2:]])
def test_pictures_one_by_one_are_the_batch(function, size, side):
  x = jax.random.normal(KEY, (4, side, side, 5))
  kernel = jax.random.normal(KEY, (size, size, 5, 7))
  call = jax.jit(lambda x: function(x, kernel, products=True))
  single = jax.jit(jax.vmap(lambda x: call(x[None])[0]))
  np.testing.assert_allclose(single(x), call(x), rtol=1e-5, atol=1e-4)


def test_folding_puts_the_four_pixels_of_a_square_side_by_side():
  x = jnp.arange(2 * 4 * 6 * 3).reshape(2, 4, 6, 3)
  folded = fold(x)
  assert folded.shape == (2, 2, 3, 12)
  square = [*x[1, 2, 4], *x[1, 2, 5], *x[1, 3, 4], *x[1, 3, 5]]
  np.testing.assert_array_equal(folded[1, 1, 2], square)
  np.testing.assert_array_equal(fold(x[0]), folded[0])
  np.testing.assert_array_equal(unfold(folded), x)


@pytest.mark.slow
def test_networks_of_folded_pictures_are_those_of_plain_ones():
  images = jax.random.uniform(KEY, (2, 3, 64, 64, 3)) - 0.5
  weights = jax.jit(ConvEncoder(2).init)(KEY, images)
  folded = jax.jit(ConvEncoder(2, folded=True).apply)(weights, fold(images))
  embed = jax.jit(ConvEncoder(2).apply)(weights, images)
  assert folded.shape == embed.shape == (2, 3, 64)
  np.testing.assert_allclose(folded, embed, rtol=1e-5, atol=1e-6)

  decoded, weights = jax.jit(ConvDecoder(2).init_with_output)(KEY, embed)
  params = weights["params"]
  # The three channels differ in their bias.
  params["ConvTranspose_3"]["bias"] = jnp.array([1.0, 2.0, 3.0])
  decoded = jax.jit(ConvDecoder(2).apply)(weights, embed)
  folded = jax.jit(ConvDecoder(2, folded=True).apply)(weights, embed)
  np.testing.assert_allclose(unfold(folded), decoded, rtol=1e-5, atol=1e-6)


def test_the_mean_image_is_stored_as_a_picture(monkeypatch):
  config = load_config("planet.py:cartpole_swingup", ["model.center=true"])
  config.model.update(depth=2, dither=False)
  images = jax.random.randint(KEY, (2, 64, 64, 3), 0, 256).astype(jnp.uint8)
  means = []
  for backend in ("cpu", "gpu"):
    monkeypatch.setattr(jax, "default_backend", lambda b=backend: b)
    model = make_planet(config, action_dim=1)
    # The mean image alone: XLA leaves out what makes the other weights.
    mean = jax.jit(lambda x, init=model.init: init(KEY, x)["mean_image"])
    means.append(mean(images))
  assert means[0].shape == (64, 64, 3)
  np.testing.assert_array_equal(*means)


@pytest.mark.slow
def test_bfloat16_networks_keep_float32_weights_and_results():
  encoder, decoder, arrange, restore = make_image_networks(
    "conv", 64, 2, "bfloat16"
  )
  image = jax.random.uniform(KEY, (64, 64, 3)) - 0.5
  weights = jax.jit(encoder.init)(KEY, arrange(image))
  embed = jax.jit(encoder.apply)(weights, arrange(image))
  exact = jax.jit(ConvEncoder(2).apply)(weights, image)
  types = {x.dtype for x in [embed, *jax.tree.leaves(weights)]}
  assert types == {jnp.dtype("float32")}
  assert 0 < np.abs(embed - exact).max() < 0.05 * np.abs(exact).max()
  decoded, _ = jax.jit(decoder.init_with_output)(KEY, embed)
  assert decoded.dtype == jnp.float32
  assert restore(decoded).shape == (64, 64, 3)


@pytest.mark.parametrize(
  "kind, size, dtype", [("conv", 64, "float16"), ("patch", 32, "bfloat16")]
)
def test_a_dtype_that_does_not_fit_is_refused(kind, size, dtype):
  with pytest.raises(ValueError, match="image_dtype"):
    make_image_networks(kind, size, 2, dtype)


def test_the_form_is_the_processors_own():
  x, kernel = jnp.zeros((1, 8, 8, 3)), jnp.zeros((4, 4, 3, 2))
  text = str(jax.make_jaxpr(conv)(x, kernel))
  on_cpu = jax.default_backend() == "cpu"
  assert ("conv_general_dilated" in text) != on_cpu


@pytest.mark.parametrize("side, by_xla", [(4, False), (13, True)])
def test_only_a_wide_transpose_is_by_xla(side, by_xla):
  x, kernel = jnp.zeros((1, side, side, 5)), jnp.zeros((6, 6, 5, 7))
  call = lambda x: conv_transpose(x, kernel, products=True)
  assert ("conv_general_dilated" in str(jax.make_jaxpr(call)(x))) == by_xla
