"""The picture that encoder and decoder see the others beside."""

import jax
import jax.numpy as jnp
import numpy as np

from jlejepa.runtime.config import load_config
from jplanet.image_networks import from_patches
from jplanet.types import Batch
from jplanet.world_model import make_planet

SIZE, KEY = 16, jax.random.key(0)


def test_a_mean_image_is_a_shift_of_the_first_and_the_last_biases():
  options = [f"env.size={SIZE}", "model.depth=4", "model.dither=false"]
  config = load_config("planet.py:cpu", options)
  model = make_planet(config, action_dim=1, image_size=SIZE)
  plain = jax.jit(model.init)(KEY)
  # The same in every patch, so that a bias can stand for it.
  mean = 0.3 * jax.random.normal(KEY, (48,))
  shifted = jax.tree.map(lambda x: x, plain)
  shifted["mean_image"] = from_patches(jnp.tile(mean, (SIZE**2 // 16, 1)))
  first = shifted["encoder"]["params"]["patch"]["dense"]
  first["bias"] = first["bias"] + mean @ first["kernel"]
  last = shifted["decoder"]["params"]["patch"]["dense"]
  last["bias"] = last["bias"] - mean

  rng = np.random.default_rng(0)
  data = Batch(
    image=rng.integers(0, 256, (2, 3, SIZE, SIZE, 3), np.uint8),
    action=np.ones((2, 3, 1), np.float32),
    reward=np.ones((2, 3), np.float32),
  )
  encode = jax.jit(model.encode)
  loss = jax.jit(model.loss)
  decode = jax.jit(lambda params: model.decode(params, model.initial()))
  for call in (
    lambda params: encode(params, data.image[0, 0], KEY),
    lambda params: loss(params, data, KEY)[1],
    decode,
  ):
    jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4),
      call(shifted),
      call(plain),
    )
  # The mean alone is another model: what is compared depends on it.
  other = loss(plain | {"mean_image": shifted["mean_image"]}, data, KEY)[1]
  assert abs(other["loss_image"] - loss(plain, data, KEY)[1]["loss_image"]) > 1
