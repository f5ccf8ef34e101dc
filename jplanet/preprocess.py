"""Between uint8 pictures and the numbers the model works on.

The paper's pipeline keeps 5 of the 8 bits of a pixel and spreads each level
over its bin with fresh uniform noise, so that a density model cannot gain by
collapsing onto the levels. The same noisy picture is the encoder's input and
the decoder's target, in training and when acting.
"""

import math

import jax
import jax.numpy as jnp

from jlejepa.one_pass import one_pass
from jplanet.types import Array, Key


def preprocess(image: Array, key: Key | None = None, bits: int = 5) -> Array:
  """Quantises pixels, dithers them and centres them.

  x = (floor(image / 2^(8 - bits)) + u) / 2^bits - 1/2,  u ~ U[0, 1)

  u is uniform on the 256 midpoints (i + 1/2) / 256: one random byte a pixel
  instead of a float, with mean exactly 1/2 and a variance of 1/12 to 2e-5
  relative. Every value is exact in float32; do not cast it to bfloat16, whose
  8 bits lose the noise.

  Args:
    image: uint8 `[..., S, S, 3]`.
    key: consumed by the dither; `None` leaves it out (u = 0).
    bits: 1 to 8, how many bits of a pixel to keep. 8 keeps them all and
      still dithers when there is a key.

  Returns:
    float32 `[..., S, S, 3]` in [-0.5, 0.5).

  Raises:
    TypeError: the image is not uint8.
    ValueError: `bits` is out of range.
  """
  if image.dtype != jnp.uint8:
    raise TypeError(
      f"preprocess expects uint8 pixels (0 to 255), got {image.dtype}; pass "
      "the picture as the environment gave it"
    )
  _check_bits(bits)
  level = jnp.right_shift(image, jnp.uint8(8 - bits)).astype(jnp.float32)
  if key is not None:
    level += (_random_bytes(key, image.shape).astype(jnp.float32) + 0.5) / 256
  return level / 2**bits - 0.5


def postprocess(x: Array, bits: int = 5) -> Array:
  """Turns model pixels into a picture: floor(2^bits * (x + 1/2)) / 2^bits.

  Undoes `preprocess`, whatever its dither was. For pictures only, never in a
  loss: its gradient is zero.

  Args:
    x: `[..., S, S, 3]`, about [-0.5, 0.5); a predicted mean may lie outside.
    bits: 1 to 8, as given to `preprocess`.

  Returns:
    float32 `[..., S, S, 3]`, clipped to [0, 1].

  Raises:
    ValueError: `bits` is out of range.
  """
  _check_bits(bits)
  x = jnp.asarray(x, jnp.float32)
  return jnp.clip(jnp.floor(2**bits * (x + 0.5)) / 2**bits, 0, 1)


def to_uint8(picture: Array) -> Array:
  """Turns a picture in [0, 1], as from `postprocess`, into uint8 pixels.

  A pixel is min(255, floor(256 * picture)), so that
  `to_uint8(postprocess(preprocess(image, key, bits), bits))` is the image with
  its low `8 - bits` bits cleared.
  """
  picture = jnp.asarray(picture, jnp.float32)
  return jnp.clip(jnp.floor(256 * picture), 0, 255).astype(jnp.uint8)


def _check_bits(bits: int):
  if not 1 <= bits <= 8:
    raise ValueError(f"bits must be between 1 and 8, got {bits}")


def _random_bytes(key: Key, shape: tuple[int, ...]) -> Array:
  """Draws independent uniform bytes, four from every 32-bit word.

  Half the time of `jax.random.uniform` for a batch on two CPU cores, where
  `jax.random.bits(..., dtype=uint8)` saves nothing: it hashes once a byte.
  Leading axes stay axes, so that a sharded batch keeps its sharding.
  """
  lead, event = shape[:-3], shape[-3:]
  size = math.prod(event)
  words = jax.random.bits(one_pass(key), (*lead, -(-size // 4)), jnp.uint32)
  by_word = jax.lax.bitcast_convert_type(words, jnp.uint8)
  return by_word.reshape(*lead, -1)[..., :size].reshape(shape)
