"""Encoders and decoders of images, for any leading axes.

The paper's convolutions (PlaNet, Appendix A) and networks of products alone.
Weights start as in `networks.py`.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import flax.linen as nn
import jax.numpy as jnp

from jplanet.convolutions import by_products, conv, conv_transpose, fold, unfold
from jplanet.networks import Dense, glorot
from jplanet.types import Array


class Conv(nn.Module):
  """`convolutions.conv` or `conv_transpose` in `dtype`, with a bias.

  The weights are float32 whatever `dtype` is.
  """

  function: Callable[[Array, Array], Array]
  features: int
  size: int
  dtype: str = "float32"

  @nn.compact
  def __call__(self, x: Array) -> Array:
    shape = (self.size, self.size, x.shape[-1], self.features)
    kernel = self.param("kernel", glorot, shape)
    bias = self.param("bias", nn.initializers.zeros, (self.features,))
    maps = x.reshape(-1, *x.shape[-3:]).astype(self.dtype)
    y = self.function(maps, kernel.astype(self.dtype))
    # Where the function folds pixels, a channel stands there four times.
    y = y + jnp.tile(bias, y.shape[-1] // self.features).astype(self.dtype)
    return y.reshape(*x.shape[:-3], *y.shape[1:])


class ConvEncoder(nn.Module):
  """Four VALID stride-2 convolutions: 64 -> 31 -> 14 -> 6 -> 2 (`[1024]`).

  `dtype` is the type of products and activations; the result is float32. With
  `folded` it takes pictures as `fold` leaves them.
  """

  depth: int = 32
  dtype: str = "float32"
  folded: bool = False

  @nn.compact
  def __call__(self, image: Array) -> Array:
    x = image
    if self.folded:
      x = unfold(x.reshape(-1, *x.shape[-3:]))
    for i in range(4):
      width = self.depth * 2**i
      x = nn.relu(Conv(conv, width, 4, self.dtype, name=f"Conv_{i}")(x))
    return x.reshape(*image.shape[:-3], -1).astype(jnp.float32)


class ConvDecoder(nn.Module):
  """A linear layer and four transposed convolutions: 1 -> 5 -> 13 -> 30 -> 64.

  The dense layer has no activation; the last convolution is linear. `dtype` and
  `folded` are as for `ConvEncoder`.
  """

  depth: int = 32
  dtype: str = "float32"
  folded: bool = False

  @nn.compact
  def __call__(self, features: Array) -> Array:
    x = Dense(32 * self.depth, name="dense")(features)[..., None, None, :]
    for i, (width, size) in enumerate([(4, 5), (2, 5), (1, 6), (None, 6)]):
      width = 3 if width is None else width * self.depth
      name = f"ConvTranspose_{i}"
      function = _folded_transpose if self.folded and i == 3 else conv_transpose
      x = Conv(function, width, size, self.dtype, name=name)(x)
      x = nn.relu(x) if i < 3 else x
    return x.astype(jnp.float32)


def _folded_transpose(x: Array, kernel: Array) -> Array:
  return fold(conv_transpose(x, kernel))


class PatchEncoder(nn.Module):
  """Non-overlapping 4x4 patches, then 2x2 merges down to a 2x2 map.

  Takes pixels in the order of `to_patches`, `[.., P, 48]`, in which four cells
  to be merged are neighbours: every layer is one matrix product. On CPU, where
  the gradients of overlapping convolutions and every transposition are slow,
  nothing is left of either cost.
  """

  depth: int = 32

  @nn.compact
  def __call__(self, x: Array) -> Array:
    width = self.depth
    x = nn.relu(Dense(width, name="patch")(x))
    while x.shape[-2] > 4:
      width *= 2
      x = x.reshape(*x.shape[:-2], x.shape[-2] // 4, -1)
      x = nn.relu(Dense(width, name=f"merge{width}")(x))
    return x.reshape(*x.shape[:-2], -1)


class PatchDecoder(nn.Module):
  """The mirror image of `PatchEncoder`: `[.., F] -> [.., P, 48]`."""

  patches: int
  depth: int = 32

  @nn.compact
  def __call__(self, features: Array) -> Array:
    width, cells = self.depth * math.isqrt(self.patches) // 2, 4
    x = nn.relu(Dense(cells * width, name="dense")(features))
    x = x.reshape(*x.shape[:-1], cells, width)
    while cells < self.patches:
      width, cells = width // 2, cells * 4
      x = nn.relu(Dense(4 * width, name=f"split{width}")(x))
      x = x.reshape(*x.shape[:-2], cells, width)
    return Dense(48, name="patch")(x)


def to_patches(image: Array) -> Array:
  """Orders the pixels of `[S, S, 3]` as 4x4 patches `[(S / 4)^2, 48]`.

  The patches follow the Z-order curve: each run of four is a 2x2 square, each
  run of sixteen a 4x4 square, and so on.
  """
  levels = int(math.log2(image.shape[0] // 4))
  split = [2] * levels + [4]
  x = image.reshape(*split, *split, 3)
  order = [axis for i in range(levels + 1) for axis in (i, levels + 1 + i)]
  return x.transpose(*order, 2 * levels + 2).reshape(-1, 48)


def from_patches(x: Array) -> Array:
  """Undoes `to_patches`: `[P, 48] -> [S, S, 3]`."""
  size = 4 * math.isqrt(x.shape[0])
  levels = int(math.log2(size // 4))
  x = x.reshape(*[2] * (2 * levels), 4, 4, 3)
  order = [2 * i for i in range(levels + 1)]
  order += [2 * i + 1 for i in range(levels + 1)]
  return x.transpose(*order, 2 * levels + 2).reshape(size, size, 3)


class ImageNetworks(NamedTuple):
  """An encoder and a decoder, and the order of pixels that they share.

  `arrange([S, S, 3])` puts the pixels in that order and `restore` undoes it; a
  loss that sums over pixels can compare images as arranged.
  """

  encoder: nn.Module
  decoder: nn.Module
  arrange: Callable[[Array], Array]
  restore: Callable[[Array], Array]


def make_image_networks(
  kind: str, size: int, depth: int, dtype: str = "float32"
) -> ImageNetworks:
  """Makes the networks `kind` for images of `size`.

  Args:
    kind: "conv" (the paper's) or "patch" (matrix products only).
    size: `S`; 64 for "conv", a power of two of at least 8 for "patch".
    depth: channels of the first layer.
    dtype: "float32", or "bfloat16" for the products and activations of "conv".

  Raises:
    ValueError: for an unknown kind, or a size or dtype that it cannot take.
  """
  if dtype not in ("float32", "bfloat16"):
    raise ValueError(
      f"unknown model.image_dtype {dtype!r}: expected 'float32' or 'bfloat16'"
    )
  if kind == "conv":
    if size != 64:
      raise ValueError(
        f"the convolutional networks take 64x64 images, got size={size}: set"
        " model.encoder='patch' or env.size=64"
      )
    # Convolutions as products fold their pictures, and unfold them again. XLA
    # leaves both out where the pictures come folded.
    folded = by_products()
    same = lambda x: x
    return ImageNetworks(
      ConvEncoder(depth, dtype, folded),
      ConvDecoder(depth, dtype, folded),
      fold if folded else same,
      unfold if folded else same,
    )
  if kind == "patch":
    if dtype != "float32":
      raise ValueError(
        "model.image_dtype='bfloat16' needs model.encoder='conv'"
      )
    if size < 8 or size & (size - 1):
      raise ValueError(
        "the patch networks take a size that is a power of two of at least 8,"
        f" got size={size}"
      )
    decoder = PatchDecoder((size // 4) ** 2, depth)
    return ImageNetworks(PatchEncoder(depth), decoder, to_patches, from_patches)
  raise ValueError(f"unknown encoder {kind!r}: expected 'conv' or 'patch'")
