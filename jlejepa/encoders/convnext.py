"""ConvNeXt (Liu et al. 2022) and, with GRN, ConvNeXt V2 (Woo et al. 2023)."""

from typing import NamedTuple

import flax.linen as nn
import jax.numpy as jnp

from jlejepa.dots import DOTS
from jlejepa.encoders.layers import DropPath, drop_rates, from_module
from jlejepa.encoders.options import (
  check_choice,
  check_drop_path,
  check_precision,
)
from jlejepa.encoders.types import Array, Encoder, Features


class Size(NamedTuple):
  """Channels of the first stage, doubled at each, and blocks of each stage."""

  width: int
  blocks: tuple[int, int, int, int]


SIZES = {
  "atto": Size(40, (2, 2, 6, 2)),
  "femto": Size(48, (2, 2, 6, 2)),
  "pico": Size(64, (2, 2, 6, 2)),
  "nano": Size(80, (2, 2, 8, 2)),
  "tiny": Size(96, (3, 3, 9, 3)),
}
# The original's cut at -2 and 2 is a hundred standard deviations away.
normal = nn.initializers.normal(0.02)


class GlobalResponseNorm(nn.Module):
  """`x + scale * x * G(x) / mean_C G(x) + bias`, `G` the norm over the map."""

  @nn.compact
  def __call__(self, x: Array) -> Array:
    shape = (x.shape[-1],)
    scale = self.param("scale", nn.initializers.zeros, shape)
    bias = self.param("bias", nn.initializers.zeros, shape)
    y = x.astype(jnp.float32)
    # The root has no gradient at a channel that is 0 everywhere.
    energy = jnp.sum(jnp.square(y), (1, 2), keepdims=True)
    response = jnp.sqrt(energy + 1e-12)
    response /= jnp.mean(response, -1, keepdims=True) + 1e-6
    return (y + scale * (y * response) + bias).astype(x.dtype)


class ConvNeXt(nn.Module):
  """The attributes are the options of `make_convnext`."""

  size: Size
  patch: int
  grn: bool
  drop_path: float
  dot: str
  dtype: str

  def conv(self, features, size, name, **options):
    """A convolution in patches, or what `options` make of it."""
    return nn.Conv(
      features,
      (size, size),
      **{"strides": size, "padding": "VALID", **options},
      kernel_init=normal,
      dtype=self.dtype,
      name=name,
    )

  def norm(self, name):
    return nn.LayerNorm(1e-6, dtype=self.dtype, name=name)

  def dense(self, features, name):
    return nn.Dense(
      features,
      kernel_init=normal,
      dtype=self.dtype,
      dot_general=DOTS[self.dot],
      name=name,
    )

  def block(self, x, rate, train, name):
    """Adds a depthwise convolution and an MLP to their input."""
    width = x.shape[-1]
    y = self.conv(
      width,
      7,
      f"{name}_conv",
      strides=1,
      padding="SAME",
      feature_group_count=width,
    )(x)
    y = self.dense(4 * width, f"{name}_in")(self.norm(f"{name}_norm")(y))
    y = nn.gelu(y, approximate=False)
    if self.grn:
      y = GlobalResponseNorm(name=f"{name}_grn")(y)
    y = self.dense(width, f"{name}_out")(y)
    if not self.grn:
      init = nn.initializers.constant(1e-6)
      y = y * self.param(f"{name}_scale", init, (width,)).astype(y.dtype)
    return x + DropPath(rate, name=f"{name}_drop")(y, train)

  @nn.compact
  def __call__(self, images: Array, *, train: bool) -> Features:
    for side in images.shape[1:3]:
      if side % self.patch or side // self.patch < 8:
        raise ValueError(
          f"images of {side} pixels do not fit patches of {self.patch}: the"
          f" side must be a multiple of {self.patch} and at least"
          f" {8 * self.patch}"
        )
    width, blocks = self.size
    rates = iter(drop_rates(self.drop_path, sum(blocks)))
    x = images.astype(self.dtype)
    for stage, count in enumerate(blocks):
      features = width * 2**stage
      if stage == 0:
        x = self.conv(features, self.patch, "stem")(x)
        x = self.norm("stem_norm")(x)
      else:
        x = self.norm(f"down{stage}_norm")(x)
        x = self.conv(features, 2, f"down{stage}")(x)
      for i in range(count):
        before = x
        x = self.block(x, next(rates), train, f"block{stage}_{i}")
    norm = nn.LayerNorm(1e-6, dtype=jnp.float32, name="norm")
    x, before = x.astype(jnp.float32), before.astype(jnp.float32)
    return Features(
      embedding=norm(x.mean((1, 2))),
      previous=norm(before.mean((1, 2))),
      tokens=x,
    )


def make_convnext(
  *,
  size: str = "nano",
  patch: int = 4,
  grn: bool = False,
  drop_path: float = 0.1,
  dot: str = "float32",
  dtype: str = "float32",
) -> Encoder:
  """Makes a ConvNeXt; the embedding is the LayerNorm of the mean of the map.

  `Features.previous` is the same one block earlier; `Features.tokens` the last
  map before both.

  Args:
    size: "atto", "femto", "pico", "nano" or "tiny".
    patch: side and stride of the stem's convolution: 4, or 2 or 1 for images of
      32x32.
    grn: global response normalisation in place of LayerScale: version 2.
    drop_path: rate of stochastic depth at the last block, rising linearly from
      0 at the first; above 0 `apply` needs a key in training.
    dot: "float32" or "bfloat16" products of the dense layers, with float32
      activations: for CPUs.
    dtype: of activations and products, "float32" or "bfloat16": for GPUs and
      TPUs. Parameters, normalisations and features are float32.

  Raises:
    ValueError: for options that do not fit, and when applied to images that do
      not divide into patches or are too small.
  """
  check_choice("size", size, SIZES)
  check_choice("patch", patch, (4, 2, 1))
  check_drop_path(drop_path)
  check_precision(dot=dot, dtype=dtype)
  # The products of bfloat16 activations are bfloat16 in any case.
  if dtype == "bfloat16":
    dot = "float32"
  return from_module(ConvNeXt(SIZES[size], patch, grn, drop_path, dot, dtype))
