"""Convolutions of stride 2 without padding, and their transposes.

Two forms of each, of the same numbers: XLA's own for accelerators, and one of
matrix products for the CPU, where XLA's gradients of a convolution are many
times slower than the products that they consist of.

In the form of products a stride of 2 is folded into channels (four pixels of a
2x2 square side by side), so that one kind of convolution is left, of stride 1.
Its patches are made for a few pictures at a time and made again for the
gradient: held all at once they would be the largest array of a training step.
"""

import jax
import jax.numpy as jnp
from jax import lax

from jplanet.types import Array

# Pictures whose patches exist at once.
CHUNK = 25
DIMS = ("NHWC", "HWIO", "NHWC")


def conv(x: Array, kernel: Array, *, products: bool | None = None) -> Array:
  """Convolves `[N, H, W, C]` with `[k, k, C, O]`, stride 2, no padding.

  Args:
    x: the pictures.
    kernel: of the same type; `k` is even.
    products: take the form of matrix products; by default on the CPU.

  Returns:
    `[N, (H - k) // 2 + 1, (W - k) // 2 + 1, O]`.
  """
  if not _by_products(products):
    return lax.conv_general_dilated(
      x, kernel, (2, 2), "VALID", dimension_numbers=DIMS
    )
  size = kernel.shape[0]
  rows, columns = (2 * ((n - size) // 2) + size for n in x.shape[1:3])
  folded = _fold(x[:, :rows, :columns])
  return _conv1(folded, _fold_kernel(kernel))


def conv_transpose(
  x: Array, kernel: Array, *, products: bool | None = None
) -> Array:
  """Transposed convolution of `[N, H, W, C]` with `[k, k, C, O]`, stride 2.

  As `jax.lax.conv_transpose`, which does not flip the kernel.

  Args:
    x: the maps.
    kernel: of the same type.
    products: take the form of matrix products; by default on the CPU.

  Returns:
    `[N, 2 * (H - 1) + k, 2 * (W - 1) + k, O]`.
  """
  if not _by_products(products):
    return lax.conv_transpose(
      x, kernel, (2, 2), "VALID", dimension_numbers=DIMS
    )
  size = kernel.shape[0]
  rows, columns = (2 * (n - 1) + size for n in x.shape[1:3])
  taps = -(-size // 2)
  # `lax` leaves the kernel as it is where the output is read: pixel i of the
  # output is the sum of x[j] * kernel[size - 1 - (i - 2 j)].
  flipped = kernel[::-1, ::-1]
  if x.shape[1:3] == (1, 1):
    # Nothing overlaps: one product, a sixteenth of the time of what follows.
    matrix = jnp.moveaxis(flipped, 2, 0).reshape(kernel.shape[2], -1)
    product = _dot(x[:, 0, 0], matrix).astype(x.dtype)
    return product.reshape(-1, size, size, kernel.shape[3])
  odd = 2 * taps - size
  flipped = jnp.pad(flipped, ((0, odd), (0, odd), (0, 0), (0, 0)))
  split = flipped.reshape(taps, 2, taps, 2, *kernel.shape[2:])
  each = split[::-1, :, ::-1].transpose(0, 2, 4, 1, 3, 5)
  each = each.reshape(taps, taps, kernel.shape[2], -1)
  border = (taps - 1, taps - 1)
  padded = jnp.pad(x, ((0, 0), border, border, (0, 0)))
  return _unfold(_conv1(padded, each))[:, :rows, :columns]


def _by_products(products: bool | None) -> bool:
  return jax.default_backend() == "cpu" if products is None else products


def _fold(x: Array) -> Array:
  """`[N, 2 H, 2 W, C] -> [N, H, W, 4 C]`."""
  n, rows, columns, channels = x.shape
  x = x.reshape(n, rows // 2, 2, columns // 2, 2, channels)
  x = x.transpose(0, 1, 3, 2, 4, 5)
  return x.reshape(n, rows // 2, columns // 2, 4 * channels)


def _unfold(x: Array) -> Array:
  """`[N, H, W, 4 C] -> [N, 2 H, 2 W, C]`."""
  n, rows, columns, channels = x.shape
  x = x.reshape(n, rows, columns, 2, 2, channels // 4)
  x = x.transpose(0, 1, 3, 2, 4, 5)
  return x.reshape(n, 2 * rows, 2 * columns, channels // 4)


def _fold_kernel(kernel: Array) -> Array:
  """`[2 k, 2 k, C, O] -> [k, k, 4 C, O]`."""
  rows, columns, channels, outputs = kernel.shape
  split = kernel.reshape(rows // 2, 2, columns // 2, 2, channels, outputs)
  split = split.transpose(0, 2, 1, 3, 4, 5)
  return split.reshape(rows // 2, columns // 2, 4 * channels, outputs)


@jax.custom_vjp
def _conv1(x: Array, kernel: Array) -> Array:
  """Convolution of stride 1, no padding, summed in float32."""
  return _by_chunks(lambda part: _multiply(part, kernel), x)


def _forward(x: Array, kernel: Array):
  return _conv1(x, kernel), (x, kernel)


def _backward(saved, gradient: Array):
  x, kernel = saved
  taps = len(kernel)
  border = (taps - 1, taps - 1)
  mirrored = kernel[::-1, ::-1].swapaxes(2, 3)

  def to_input(g):
    padded = jnp.pad(g, ((0, 0), border, border, (0, 0)))
    return _multiply(padded, mirrored)

  def to_kernel(total, part):
    patches, g = _as_matrix(_patches(part[0], taps)), _as_matrix(part[1])
    return total + _dot(patches.T, g), None

  total = jnp.zeros((kernel[..., 0].size, kernel.shape[3]), jnp.float32)
  parts = _split(x), _split(gradient)
  total, _ = lax.scan(to_kernel, total, parts)
  total = total.reshape(kernel.shape).astype(kernel.dtype)
  return _by_chunks(to_input, gradient), total


_conv1.defvjp(_forward, _backward)


def _multiply(x: Array, kernel: Array) -> Array:
  patches = _patches(x, len(kernel))
  matrix = kernel.reshape(-1, kernel.shape[3])
  product = _dot(_as_matrix(patches), matrix).astype(x.dtype)
  return product.reshape(*patches.shape[:3], -1)


def _patches(x: Array, taps: int) -> Array:
  """`[N, H, W, C] -> [N, H - taps + 1, W - taps + 1, taps * taps * C]`."""
  rows, columns = (n - taps + 1 for n in x.shape[1:3])
  parts = [
    x[:, i : i + rows, j : j + columns]
    for i in range(taps)
    for j in range(taps)
  ]
  return jnp.concatenate(parts, -1)


def _as_matrix(x: Array) -> Array:
  return x.reshape(-1, x.shape[-1])


def _dot(a: Array, b: Array) -> Array:
  return jnp.dot(a, b, preferred_element_type=jnp.float32)


def _split(x: Array) -> Array:
  """`[N, ...] -> [N / n, n, ...]`, n the largest divisor up to `CHUNK`."""
  count = len(x)
  size = next(n for n in range(min(CHUNK, count), 0, -1) if count % n == 0)
  return x.reshape(count // size, size, *x.shape[1:])


def _by_chunks(function, x: Array) -> Array:
  parts = _split(x)
  if len(parts) == 1:
    return function(x)
  done = lax.map(function, parts)
  return done.reshape(-1, *done.shape[2:])
