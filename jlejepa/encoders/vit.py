"""Vision transformers (Dosovitskiy et al. 2021), for views of two sizes."""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from jlejepa.dots import DOTS
from jlejepa.encoders.attention import ATTENTIONS, attend
from jlejepa.encoders.layers import DropPath, drop_rates, from_module
from jlejepa.encoders.options import (
  check_choice,
  check_drop_path,
  check_positive,
  check_precision,
)
from jlejepa.encoders.types import Array, Encoder, Features


class Size(NamedTuple):
  """Tokens of `width`, `depth` blocks of `heads` heads and an MLP of `mlp`."""

  width: int
  depth: int
  heads: int
  mlp: int


# As in timm, but for "mini", which is for images of 32x32.
SIZES = {
  "mini": Size(128, 6, 4, 512),
  "tiny": Size(192, 12, 3, 768),
  "small": Size(384, 12, 6, 1536),
  "base": Size(768, 12, 12, 3072),
  "large": Size(1024, 24, 16, 4096),
  "huge": Size(1280, 32, 16, 5120),
  "giant": Size(1408, 40, 16, 6144),
}

# timm cuts its normal at -2 and 2, a hundred standard deviations away.
normal = nn.initializers.normal(0.02)
# PyTorch's own for convolutions, which timm leaves to the patches.
patch_init = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")


@jax.checkpoint
def gelu(x: Array) -> Array:
  """The exact one; only its argument is kept for the gradient."""
  return nn.gelu(x, approximate=False)


class Block(nn.Module):
  """`x + attention(norm(x))`, then `x + mlp(norm(x))`, for `[N, T, width]`.

  Returns parts of its tokens: all of them, or, with `split`, the first `split`
  and the others. Parts have nothing in common but keys and values. So where
  nobody reads one, XLA leaves out all that it alone needs: of the last block a
  loss reads the CLS token, and three quarters of the products go.
  """

  size: Size
  drop_path: float
  layer_scale: float
  dot: str
  dtype: str
  attention_form: str
  split: int = 0

  @nn.compact
  def __call__(self, x: Array, train: bool) -> list[Array]:
    width, _, heads, mlp = self.size
    dense = lambda features, name: nn.Dense(
      features,
      kernel_init=normal,
      dtype=self.dtype,
      dot_general=DOTS[self.dot],
      name=name,
    )
    norm = lambda name: nn.LayerNorm(1e-6, dtype=self.dtype, name=name)
    attention, mlp_norm = dense(width, "attention"), norm("mlp_norm")
    mlp_in, mlp_out = dense(mlp, "mlp_in"), dense(width, "mlp_out")

    def scale(name):
      """Returns what a branch is multiplied by, the same for all parts."""
      ones = jnp.ones((len(x), 1, 1))
      kept = DropPath(self.drop_path, name=f"{name}_drop")(ones, train)
      if not self.layer_scale:
        return kept
      init = nn.initializers.constant(self.layer_scale)
      return kept * self.param(f"{name}_scale", init, (width,))

    of_attention, of_mlp = scale("attention"), scale("mlp")
    qkv = dense(3 * width, "qkv")(norm("attention_norm")(x))
    mixed = attend(qkv, heads, self.attention_form, self.split)

    def rest(x, mixed):
      x = x + (attention(mixed) * of_attention).astype(x.dtype)
      hidden = gelu(mlp_in(mlp_norm(x)))
      return x + (mlp_out(hidden) * of_mlp).astype(x.dtype)

    parts = jnp.split(x, [self.split], 1) if self.split else [x]
    return [rest(*part) for part in zip(parts, mixed)]


class ViT(nn.Module):
  """The attributes are the options of `make_vit`; `grid` is that of `image`."""

  size: Size
  patch: int
  grid: int
  registers: int
  pool: str
  drop_path: float
  layer_scale: float
  dot: str
  dtype: str
  attention_form: str

  @nn.compact
  def __call__(self, images: Array, *, train: bool) -> Features:
    n, height, width, channels = images.shape
    patch, dim = self.patch, self.size.width
    for side in (height, width):
      if side % patch:
        near = side - side % patch
        raise ValueError(
          f"images of {side} pixels are no whole number of patches of {patch}:"
          f" give images of {near or patch} or {near + patch}"
        )
    h, w = height // patch, width // patch
    x = images.reshape(n, h, patch, w, patch, channels)
    x = x.transpose(0, 1, 3, 2, 4, 5).reshape(n, h * w, -1).astype(self.dtype)
    x = nn.Dense(
      dim,
      kernel_init=patch_init,
      dtype=self.dtype,
      dot_general=DOTS[self.dot],
      name="patch",
    )(x)

    almost_zero = nn.initializers.normal(1e-6)
    cls = self.param("cls", almost_zero, (1, dim))
    position = self.param("position", normal, (1 + self.grid**2, dim))
    x = x + resample(position[1:], self.grid, (h, w)).astype(x.dtype)
    first = [cls + position[:1]]
    if self.registers:
      first.append(self.param("registers", almost_zero, (self.registers, dim)))
    first = jnp.concatenate(first).astype(x.dtype)
    x = jnp.concatenate([jnp.broadcast_to(first, (n, *first.shape)), x], axis=1)

    final_norm = nn.LayerNorm(1e-6, dtype=jnp.float32, name="norm")
    special = 1 + self.registers

    def pooled(first, patches):
      first, patches = final_norm(first), final_norm(patches)
      return first[:, 0] if self.pool == "cls" else patches.mean(1), patches

    rates = drop_rates(self.drop_path, self.size.depth)
    for i, rate in enumerate(rates):
      last = i + 1 == len(rates)
      block = Block(
        self.size,
        rate,
        self.layer_scale,
        self.dot,
        self.dtype,
        self.attention_form,
        split=special if last else 0,
        name=f"block{i}",
      )
      before, (x, *others) = x, block(x, train)
    embedding, patches = pooled(x, *others)
    return Features(
      embedding=embedding,
      previous=pooled(*jnp.split(before, [special], 1))[0],
      tokens=patches.reshape(n, h, w, dim),
    )


def resample(position: Array, grid: int, shape: tuple[int, int]) -> Array:
  """Resamples position embeddings `[grid^2, D]` to another grid, bicubically.

  The whole grid is laid over the whole view, whatever part of the image a crop
  shows; a coarser grid is smoothed first. At `shape == (grid, grid)` nothing is
  done.

  Returns:
    `[h * w, D]` for the shape `(h, w)`.
  """
  if shape == (grid, grid):
    return position
  dim = position.shape[-1]
  position = position.reshape(grid, grid, dim)
  return jax.image.resize(position, (*shape, dim), "cubic").reshape(-1, dim)


def make_vit(
  *,
  size: str = "small",
  patch: int = 16,
  image: int = 224,
  registers: int = 0,
  pool: str = "cls",
  drop_path: float = 0.1,
  layer_scale: float = 0.0,
  dot: str = "float32",
  dtype: str = "float32",
  attention: str = "xla",
) -> Encoder:
  """Makes a vision transformer with timm's sizes and first weights.

  Args:
    size: "mini" (128 wide, 6 deep, for 32x32 images), "tiny", "small", "base",
      "large", "huge" or "giant".
    patch: pixels along the side of a patch; it divides every size of view.
    image: pixels along the side of the images that the learnt position
      embeddings are stored for; other sizes resample them (see `resample`).
    registers: tokens without a position that only the blocks see.
    pool: "cls", or "mean" of the patch tokens, after the last LayerNorm.
    drop_path: rate of stochastic depth at the last block, rising linearly from
      0 at the first; above 0 `apply` needs a key in training.
    layer_scale: first value of the learnt scales of the branches; 0: none.
    dot: "float32" or "bfloat16" products of the dense layers, with float32
      activations: for CPUs.
    dtype: of activations and products, "float32" or "bfloat16": for GPUs and
      TPUs. Parameters, LayerNorm, softmax and features are float32.
    attention: "xla", or "cudnn" for its fused kernel (see `attend`).

  Raises:
    ValueError: for options that do not fit, and when applied to images that
      are no whole number of patches.
  """
  check_choice("size", size, SIZES)
  check_positive(patch=patch, image=image)
  if type(registers) is not int or registers < 0:
    raise ValueError(
      f"registers must be an integer of at least 0, got {registers}"
    )
  check_choice("pool", pool, ("cls", "mean"))
  check_drop_path(drop_path)
  if not layer_scale >= 0:
    raise ValueError(f"layer_scale must be at least 0, got {layer_scale}")
  check_precision(dot=dot, dtype=dtype)
  check_choice("attention", attention, ATTENTIONS)
  if image % patch:
    raise ValueError(
      f"image={image} is no whole number of patches of patch={patch}"
    )
  # The products of bfloat16 activations are bfloat16 in any case.
  if dtype == "bfloat16":
    dot = "float32"
  module = ViT(
    SIZES[size],
    patch,
    image // patch,
    registers,
    pool,
    drop_path,
    layer_scale,
    dot,
    dtype,
    attention,
  )
  return from_module(module)
