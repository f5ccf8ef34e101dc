"""A small convolutional encoder for small images, made for CPUs."""

from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp

from jlejepa.encoders.layers import Conv, batch_norm, from_module
from jlejepa.encoders.options import (
  check_choice,
  check_positive,
  check_precision,
)
from jlejepa.encoders.types import Array, Encoder, Features


class Compact(nn.Module):
  """Overlapping strided convolutions with residual ones between them.

  Stage `i` halves the map with a 4x4 convolution of stride 2 to `widths[i]`
  channels and adds `blocks[i]` times `relu(norm(conv3x3(x)))`; a last 1x1
  convolution makes `out` channels, and the embedding is the mean of the map.
  The work lies where maps are small: at 32x32 pixels and the defaults 16x16x32,
  8x8x64 and 4x4x128. Inside, arrays are `[C, H, W, N]` (see
  `convolution`). The attributes are the options of `make_compact`.
  """

  widths: Sequence[int]
  blocks: Sequence[int]
  out: int
  stem_stride: int
  out_activation: bool
  dot: str
  form: str

  @nn.compact
  def __call__(self, images: Array, *, train: bool) -> Features:
    def conv(x, features, size, stride, padding, name):
      layer = Conv(
        features, size, stride, padding, self.form, self.dot, name=name
      )
      return layer(x)

    def activate(x, name):
      return nn.relu(batch_norm(x, train, 0, name))

    x = images.astype(jnp.float32).transpose(3, 1, 2, 0)
    for i, (width, blocks) in enumerate(zip(self.widths, self.blocks)):
      stride = self.stem_stride if i == 0 else 2
      x = conv(x, width, 2 + stride, stride, 1, f"down{i}")
      x = activate(x, f"down{i}_norm")
      for j in range(blocks):
        y = conv(x, width, 3, 1, 1, f"block{i}_{j}")
        x = x + activate(y, f"block{i}_{j}_norm")
    previous = x
    x = conv(x, self.out, 1, 1, 0, "out")
    if self.out_activation:
      x = activate(x, "out_norm")
    return Features(
      embedding=x.mean((1, 2)).T,
      previous=previous.mean((1, 2)).T,
      tokens=x.transpose(3, 1, 2, 0),
    )


def make_compact(
  *,
  widths: Sequence[int] = (32, 64, 128),
  blocks: Sequence[int] = (0, 1, 2),
  out: int = 256,
  stem_stride: int = 2,
  out_activation: bool = True,
  dot: str = "float32",
  form: str = "auto",
) -> Encoder:
  """Makes the encoder for small images on CPUs (see `Compact`).

  Args:
    widths: channels of each stage.
    blocks: residual convolutions of each stage.
    out: `D`.
    stem_stride: 2, or 1 for tiny images (8x8): the first stage then keeps the
      size, with a 3x3 convolution.
    out_activation: whether BatchNorm and ReLU follow the last convolution;
      without them the embedding is a linear map of the pooled last stage, of
      rank `widths[-1]` at most.
    dot: "float32" or "bfloat16" products; activations stay float32.
    form: of the convolutions, "auto", "lax" or "patches" (see `convolve`).

  Raises:
    ValueError: for options that do not fit, and when applied to images too
      small for the stages.
  """
  if not widths or len(widths) != len(blocks):
    raise ValueError(
      "widths and blocks need one number per stage, got"
      f" widths={tuple(widths)}, blocks={tuple(blocks)}"
    )
  for width, count in zip(widths, blocks):
    check_positive(widths=width)
    if type(count) is not int or count < 0:
      raise ValueError(f"blocks must be integers of at least 0, got {count}")
  check_positive(out=out)
  check_choice("stem_stride", stem_stride, (1, 2))
  check_choice("out_activation", out_activation, (True, False))
  check_precision(dot=dot, form=form)
  module = Compact(
    tuple(widths), tuple(blocks), out, stem_stride, out_activation, dot, form
  )
  return from_module(module)
