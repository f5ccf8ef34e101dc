"""Crops: where they lie, and how they are resampled.

A bilinear resampling with antialiasing is linear and separable, so a crop of
any box is two small matrix products: static shapes for boxes that differ from
view to view, and no gather. This is the fastest form on CPU, GPU and TPU.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

ATTEMPTS = 10


class Box(NamedTuple):
  """A rectangle of whole pixels; each field is an int32 scalar.

  Attributes:
    top: the first row.
    left: the first column.
    height: rows, at least 1.
    width: columns, at least 1.
  """

  top: jax.Array
  left: jax.Array
  height: jax.Array
  width: jax.Array


def random_box(
  key: jax.Array,
  image_height: int,
  image_width: int,
  *,
  scale: tuple[float, float],
  ratio: tuple[float, float] = (3 / 4, 4 / 3),
) -> Box:
  """Draws the box of a random resized crop, by torchvision's rule.

  Ten boxes are drawn, their area uniform in `scale` times the image's, their
  aspect ratio (width over height) log-uniform in `ratio`; the first that fits
  is placed uniformly. If none fits: the largest centred box whose aspect ratio
  is in `ratio`.

  Args:
    key: a typed key, consumed.
    image_height: pixels.
    image_width: pixels.
    scale: the smallest and the largest area, fractions in (0, 1].
    ratio: the smallest and the largest aspect ratio.
  """
  u = jax.random.uniform(key, (2 * ATTEMPTS + 2,))
  area, log_ratio = u[:ATTEMPTS], u[ATTEMPTS : 2 * ATTEMPTS]
  area = image_height * image_width * _between(area, scale)
  low, high = math.log(ratio[0]), math.log(ratio[1])
  aspect = jnp.exp(_between(log_ratio, (low, high)))
  widths = jnp.round(jnp.sqrt(area * aspect)).astype(jnp.int32)
  heights = jnp.round(jnp.sqrt(area / aspect)).astype(jnp.int32)
  fits = (heights >= 1) & (heights <= image_height)
  fits &= (widths >= 1) & (widths <= image_width)

  first, found = jnp.argmax(fits), jnp.any(fits)
  last_height, last_width = _largest_box(image_height, image_width, ratio)
  height = jnp.where(found, heights[first], last_height)
  width = jnp.where(found, widths[first], last_width)
  spare_rows, spare_columns = image_height - height, image_width - width
  # u < 1, and a product with so few bits never rounds up to the whole number.
  top = jnp.floor(u[-2] * (spare_rows + 1)).astype(jnp.int32)
  left = jnp.floor(u[-1] * (spare_columns + 1)).astype(jnp.int32)
  return Box(
    top=jnp.where(found, top, spare_rows // 2),
    left=jnp.where(found, left, spare_columns // 2),
    height=height,
    width=width,
  )


def crop_and_resize(
  image: jax.Array,
  box: Box,
  size: int,
  *,
  flip: jax.Array | bool = False,
) -> jax.Array:
  """Cuts a box out and resamples it: bilinear, antialiased.

  As cropping with PIL and then resizing with `BILINEAR`, without its rounding
  to bytes: pixels outside the box do not bleed in.

  Args:
    image: floating `[H, W, C]`.
    box: within the image.
    size: `S`.
    flip: whether to mirror left and right.

  Returns:
    float32 `[S, S, C]`.
  """
  rows = resampling_weights(image.shape[0], size, box.top, box.height)
  columns = resampling_weights(image.shape[1], size, box.left, box.width)
  columns = jnp.where(flip, columns[::-1], columns)
  return _apply(rows, columns, image)


def resize_and_centre_crop(
  image: jax.Array, size: int, *, resize: int | None = None
) -> jax.Array:
  """Resizes the shorter side and cuts a centred square, for evaluation.

  As torchvision's `Resize(resize)` and `CenterCrop(size)`.

  Args:
    image: floating `[H, W, C]`.
    size: `S`, at most `resize`.
    resize: the shorter side after resizing; `size` if None.

  Returns:
    float32 `[S, S, C]`.

  Raises:
    ValueError: if `resize` is below `size`.
  """
  resize = size if resize is None else resize
  if resize < size:
    raise ValueError(
      f"resize must be at least the size of the view, {size}, got {resize}"
    )
  shorter = min(image.shape[:2])

  def weights(length):
    resized = int(resize * length / shorter)
    start = round((resized - size) / 2)
    return resampling_weights(length, resized, 0, length)[start : start + size]

  return _apply(weights(image.shape[0]), weights(image.shape[1]), image)


def resampling_weights(
  length: int, size: int, start: jax.Array | int, extent: jax.Array | int
) -> jax.Array:
  """Builds the matrix that resamples one axis, `[size, length]`.

  Row i is the triangle of half-width max(1, s), s = extent / size, centred at
  start + (i + 1/2) s, cut to the box and scaled to sum 1.

  Args:
    length: pixels of the source.
    size: pixels of the result.
    start: the first source pixel of the box.
    extent: source pixels in the box.
  """
  pixel = jnp.arange(length, dtype=jnp.int32) - start
  step = extent / jnp.float32(size)
  centre = (jnp.arange(size, dtype=jnp.float32) + 0.5) * step
  distance = jnp.abs(pixel[None, :] + 0.5 - centre[:, None])
  weights = jnp.maximum(0.0, 1.0 - distance / jnp.maximum(step, 1.0))
  weights = jnp.where((pixel >= 0) & (pixel < extent), weights, 0.0)
  return weights / jnp.sum(weights, axis=1, keepdims=True)


def _apply(rows: jax.Array, columns: jax.Array, image: jax.Array) -> jax.Array:
  """Computes rows @ image @ columns^T for each channel."""
  precision = jax.lax.Precision.HIGHEST
  # Channels in the middle: both products are then plain matrix products.
  x = jnp.einsum(
    "sh,hcw->scw", rows, jnp.swapaxes(image, 1, 2), precision=precision
  )
  x = jnp.einsum("scw,tw->sct", x, columns, precision=precision)
  return jnp.swapaxes(x, 1, 2)


def _between(u: jax.Array, bounds: tuple[float, float]) -> jax.Array:
  return bounds[0] + (bounds[1] - bounds[0]) * u


def _largest_box(
  image_height: int, image_width: int, ratio: tuple[float, float]
) -> tuple[int, int]:
  """Returns height and width of the largest box within the aspect ratios."""
  if image_width < ratio[0] * image_height:
    return round(image_width / ratio[0]), image_width
  if image_width > ratio[1] * image_height:
    return image_height, round(image_height * ratio[1])
  return image_height, image_width
