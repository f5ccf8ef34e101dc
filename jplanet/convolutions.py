"""Convolutions of stride 2 without padding, and their transposes.

Two forms of each, of the same numbers: XLA's convolutions for accelerators, and
one of matrix products for the CPU, where XLA's gradients of a convolution are
many times slower than the products that they consist of.

In the form of products, and in every transpose, a stride of 2 is folded into
channels (four pixels of a 2x2 square side by side), so that one kind of
convolution is left, of stride 1, and its transpose; each is the gradient of the
other. Patches are made for a few pictures at a time and made again for the
gradient: held all at once they would be the largest array of a training step.
"""

import math

import jax
import jax.numpy as jnp
from jax import lax

from jplanet.types import Array

# Values of patches that exist at once: 4 MB, which a cache can hold.
VALUES = 2**20
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
  if not by_products(products):
    return lax.conv_general_dilated(
      x, kernel, (2, 2), "VALID", dimension_numbers=DIMS
    )
  size = kernel.shape[0]
  rows, columns = (2 * ((n - size) // 2) + size for n in x.shape[1:3])
  folded = fold(x[:, :rows, :columns])
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
  size = len(kernel)
  rows, columns = (2 * (n - 1) + size for n in x.shape[1:3])
  odd = (0, size % 2)
  # Turned, because the kernel is not flipped where the output is read: pixel i
  # of the output is the sum of x[j] * kernel[size - 1 - (i - 2 j)].
  turned = kernel[::-1, ::-1]
  if x.shape[1:3] == (1, 1):
    # Nothing overlaps, and one product makes it.
    matrix = jnp.moveaxis(turned, 2, 0).reshape(kernel.shape[2], -1)
    return _multiply(x, matrix).reshape(-1, size, size, kernel.shape[3])
  turned = jnp.pad(turned, (odd, odd, (0, 0), (0, 0)))
  folded = _fold_kernel(turned.swapaxes(2, 3))
  transpose = _conv1_transpose if by_products(products) else _lax_transpose
  return unfold(transpose(x, folded))[:, :rows, :columns]


def by_products(products: bool | None = None) -> bool:
  """Says whether convolutions take the form of products (see `conv`)."""
  return jax.default_backend() == "cpu" if products is None else products


def fold(x: Array) -> Array:
  """Puts the pixels of a 2x2 square side by side.

  `[..., 2 H, 2 W, C] -> [..., H, W, 4 C]`.
  """
  *lead, rows, columns, channels = x.shape
  x = x.reshape(*lead, rows // 2, 2, columns // 2, 2, channels)
  x = x.swapaxes(-4, -3)
  return x.reshape(*lead, rows // 2, columns // 2, 4 * channels)


def unfold(x: Array) -> Array:
  """Undoes `fold`: `[..., H, W, 4 C] -> [..., 2 H, 2 W, C]`."""
  *lead, rows, columns, channels = x.shape
  x = x.reshape(*lead, rows, columns, 2, 2, channels // 4)
  x = x.swapaxes(-4, -3)
  return x.reshape(*lead, 2 * rows, 2 * columns, channels // 4)


def _fold_kernel(kernel: Array) -> Array:
  """`[2 k, 2 k, C, O] -> [k, k, 4 C, O]`."""
  rows, columns, channels, outputs = kernel.shape
  split = kernel.reshape(rows // 2, 2, columns // 2, 2, channels, outputs)
  split = split.transpose(0, 2, 1, 3, 4, 5)
  return split.reshape(rows // 2, columns // 2, 4 * channels, outputs)


@jax.custom_vjp
def _conv1(x: Array, kernel: Array) -> Array:
  """Convolution of stride 1, no padding: a product with patches."""

  def one(part):
    patches = _patches(part, len(kernel))
    return _multiply(patches, kernel.reshape(-1, kernel.shape[3]))

  rows, columns = (n - len(kernel) + 1 for n in x.shape[1:3])
  return _by_chunks(one, x, _values(rows * columns, kernel))


@jax.custom_vjp
def _conv1_transpose(y: Array, kernel: Array) -> Array:
  """The transpose of `_conv1`: a product whose patches are added up.

  XLA's form goes over zeros around the pixels. Where these are at most a third
  as many, it takes less time.
  """

  def one(part):
    patches = _multiply(part, kernel.reshape(-1, kernel.shape[3]).T)
    return _add_patches(patches, len(kernel))

  rows, columns = y.shape[1:3]
  grown = (rows + len(kernel) - 1) * (columns + len(kernel) - 1)
  if y.dtype == jnp.float32 and 3 * grown <= 4 * rows * columns:
    return _lax_transpose(y, kernel)
  return _by_chunks(one, y, _values(rows * columns, kernel))


def _lax_transpose(y: Array, kernel: Array) -> Array:
  """The same by XLA, as a plain convolution of stride 1.

  XLA's own transposed convolution of stride 2 goes over a picture with zeros
  between its pixels. With a kernel that is not flipped, or for the kernel's
  gradient, it has no fast form on NVIDIA GPUs (jax issues 23783 and 31662).
  """
  border = (len(kernel) - 1,) * 2
  padded = jnp.pad(y, ((0, 0), border, border, (0, 0)))
  flipped = kernel[::-1, ::-1].swapaxes(2, 3)
  return lax.conv_general_dilated(
    padded, flipped, (1, 1), "VALID", dimension_numbers=DIMS
  )


def _by_patches(x: Array, y: Array, kernel: Array, *, convolve: bool):
  """The kernel's gradient of `sum(y * _conv1(x, kernel))`.

  With `convolve` also `_conv1(x, kernel)`, from the same patches; else None.
  """
  matrix = kernel.reshape(-1, kernel.shape[3])

  def add(total, parts):
    x, y = parts
    patches = _patches(x, len(kernel))
    # Turned beforehand, as XLA's CPU backend multiplies rows by columns faster
    # than columns by columns (at a chunk's size: not so in dense layers); the
    # barrier keeps it from undoing that. Of the two, `y` is the smaller.
    turned = lax.optimization_barrier(_as_matrix(y).T)
    total += _dot(turned, _as_matrix(patches))
    return total, _multiply(patches, matrix) if convolve else None

  start = jnp.zeros(matrix.T.shape, jnp.float32)
  values = _values(math.prod(y.shape[1:3]), kernel)
  total, made = lax.scan(add, start, (_split(x, values), _split(y, values)))
  gradient = total.T.reshape(kernel.shape).astype(kernel.dtype)
  return gradient, made.reshape(y.shape) if convolve else None


def _conv1_backward(saved, g):
  x, kernel = saved
  gradient, _ = _by_patches(x, g, kernel, convolve=False)
  return _conv1_transpose(g, kernel), gradient


def _conv1_transpose_backward(saved, g):
  y, kernel = saved
  gradient, dy = _by_patches(g, y, kernel, convolve=True)
  return dy, gradient


_conv1.defvjp(
  lambda x, kernel: (_conv1(x, kernel), (x, kernel)), _conv1_backward
)
_conv1_transpose.defvjp(
  lambda y, kernel: (_conv1_transpose(y, kernel), (y, kernel)),
  _conv1_transpose_backward,
)


def _multiply(x: Array, matrix: Array) -> Array:
  """`[N, H, W, C] @ [C, O]`, summed in float32, in the type of `x`."""
  product = _dot(_as_matrix(x), matrix).astype(x.dtype)
  return product.reshape(*x.shape[:-1], -1)


def _patches(x: Array, taps: int) -> Array:
  """`[N, H, W, C] -> [N, H - taps + 1, W - taps + 1, taps * taps * C]`."""
  rows, columns = (n - taps + 1 for n in x.shape[1:3])
  parts = [
    x[:, i : i + rows, j : j + columns]
    for i in range(taps)
    for j in range(taps)
  ]
  return jnp.concatenate(parts, -1)


def _add_patches(patches: Array, taps: int) -> Array:
  """The transpose of `_patches`: adds up what overlaps."""
  count, rows, columns, _ = patches.shape
  parts = jnp.split(patches, taps * taps, -1)
  shape = (count, rows + taps - 1, columns + taps - 1, parts[0].shape[-1])
  total = jnp.zeros(shape, patches.dtype)
  for index, part in enumerate(parts):
    i, j = divmod(index, taps)
    total = total.at[:, i : i + rows, j : j + columns].add(part)
  return total


def _as_matrix(x: Array) -> Array:
  return x.reshape(-1, x.shape[-1])


def _dot(a: Array, b: Array) -> Array:
  return jnp.dot(a, b, preferred_element_type=jnp.float32)


def _values(pixels: int, kernel: Array) -> int:
  """How many values the patches of a picture have."""
  return pixels * kernel.size // kernel.shape[3]


def _split(x: Array, values: int) -> Array:
  """`[N, ...] -> [N / n, n, ...]`; n pictures have up to `VALUES`."""
  count = len(x)
  most = max(1, min(VALUES // values, count))
  size = next(n for n in range(most, 0, -1) if count % n == 0)
  return x.reshape(count // size, size, *x.shape[1:])


def _by_chunks(function, x: Array, values: int) -> Array:
  parts = _split(x, values)
  if len(parts) == 1:
    return function(x)
  done = lax.map(function, parts)
  return done.reshape(-1, *done.shape[2:])
