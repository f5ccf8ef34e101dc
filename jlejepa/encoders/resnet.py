"""ResNets (He et al. 2016; v1.5, with the stride in the 3x3 convolution)."""

from typing import NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jax import lax

from jlejepa.encoders.layers import Conv, batch_norm, from_module
from jlejepa.encoders.options import check_choice, check_precision
from jlejepa.encoders.types import Array, Encoder, Features


class Kind(NamedTuple):
  """Blocks of each stage, and whether they are bottlenecks."""

  blocks: tuple[int, int, int, int]
  bottleneck: bool


KINDS = {
  18: Kind((2, 2, 2, 2), False),
  34: Kind((3, 4, 6, 3), False),
  50: Kind((3, 4, 6, 3), True),
}
he_fan_out = nn.initializers.variance_scaling(2.0, "fan_out", "normal")


class ResNet(nn.Module):
  """The attributes are the options of `make_resnet`.

  Inside, arrays are `[C, H, W, N]` (see `convolution`).
  """

  kind: Kind
  stem: str
  zero_last_scale: bool
  dot: str
  dtype: str
  form: str

  def conv_norm(self, x, features, size, stride, train, name, **options):
    """Convolves without bias, then normalises."""
    conv = Conv(
      features,
      size,
      stride,
      size // 2,
      self.form,
      self.dot,
      he_fan_out,
      name=name,
    )
    return batch_norm(conv(x), train, 0, f"{name}_norm", **options)

  def block(self, x, width, stride, train, name):
    """Adds two 3x3 convolutions, or 1x1, 3x3, 1x1, to their input."""
    last = dict(
      scale_init=(
        nn.initializers.zeros if self.zero_last_scale else nn.initializers.ones
      )
    )
    conv_norm = lambda x, features, size, stride, part, **options: (
      self.conv_norm(
        x, features, size, stride, train, f"{name}_{part}", **options
      )
    )
    out = 4 * width if self.kind.bottleneck else width
    if self.kind.bottleneck:
      y = nn.relu(conv_norm(x, width, 1, 1, "conv0"))
      y = nn.relu(conv_norm(y, width, 3, stride, "conv1"))
      y = conv_norm(y, out, 1, 1, "conv2", **last)
    else:
      y = nn.relu(conv_norm(x, width, 3, stride, "conv0"))
      y = conv_norm(y, out, 3, 1, "conv1", **last)
    if stride > 1 or x.shape[0] != out:
      x = conv_norm(x, out, 1, stride, "shortcut")
    return nn.relu(x + y)

  @nn.compact
  def __call__(self, images: Array, *, train: bool) -> Features:
    x = images.astype(self.dtype).transpose(3, 1, 2, 0)
    if self.stem == "imagenet":
      x = nn.relu(self.conv_norm(x, 64, 7, 2, train, "stem"))
      x = max_pool(x)
    else:
      x = nn.relu(self.conv_norm(x, 64, 3, 1, train, "stem"))
    for stage, blocks in enumerate(self.kind.blocks):
      for i in range(blocks):
        stride = 2 if stage > 0 and i == 0 else 1
        before = x
        x = self.block(x, 64 * 2**stage, stride, train, f"block{stage}_{i}")
    x, before = x.astype(jnp.float32), before.astype(jnp.float32)
    return Features(
      embedding=x.mean((1, 2)).T,
      previous=before.mean((1, 2)).T,
      tokens=x.transpose(3, 1, 2, 0),
    )


def max_pool(x: Array) -> Array:
  """Takes the maximum of 3x3 windows with stride 2 of `[C, H, W, N]`."""
  return lax.reduce_window(
    x,
    -jnp.inf,
    lax.max,
    (1, 3, 3, 1),
    (1, 2, 2, 1),
    ((0, 0), (1, 1), (1, 1), (0, 0)),
  )


def make_resnet(
  *,
  depth: int = 18,
  stem: str = "imagenet",
  zero_last_scale: bool = False,
  dot: str = "float32",
  dtype: str = "float32",
  form: str = "auto",
) -> Encoder:
  """Makes a ResNet; the embedding is the mean of the last map.

  `Features.previous` is the same one block earlier.

  Args:
    depth: 18, 34 or 50.
    stem: "imagenet" (7x7 of stride 2 and max-pooling) or "small" (3x3, for
      32x32 images).
    zero_last_scale: whether the last BatchNorm of each block starts at 0, so
      that a block starts as the identity; torchvision's default is not.
    dot: "float32" or "bfloat16" products, with float32 activations: for CPUs.
    dtype: of activations and products, "float32" or "bfloat16": for GPUs and
      TPUs. Parameters, BatchNorm and features are float32.
    form: of the convolutions, "auto", "lax" or "patches" (see `convolve`).

  Raises:
    ValueError: for options that do not fit.
  """
  check_choice("depth", depth, KINDS)
  check_choice("stem", stem, ("imagenet", "small"))
  check_precision(dot=dot, dtype=dtype, form=form)
  if dtype == "bfloat16":
    dot = "bfloat16"
  return from_module(
    ResNet(KINDS[depth], stem, zero_last_scale, dot, dtype, form)
  )
