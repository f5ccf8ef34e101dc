"""One convolution in two forms, for arrays `[C, H, W, N]`.

On CPU the gradients of XLA's convolution are several times slower than the
products they consist of. The form "patches" copies every window into a column
and multiplies once; its gradients are written the same way. With the batch
innermost each copy is a run of `N` numbers, no stride survives inside it, and
the gradient of a kernel contracts two innermost axes, for which no transposed
copy is needed.
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax

from jlejepa.dots import DOTS

FORMS = ("auto", "lax", "patches")


def convolve(
  x: jax.Array,
  kernel: jax.Array,
  *,
  stride: int = 1,
  padding: int = 0,
  form: str = "auto",
  dot: str = "float32",
) -> jax.Array:
  """Correlates `x` with a kernel, as neural networks do.

  Args:
    x: `[C, H, W, N]`, padded with `padding` zeros on all four sides.
    kernel: `[k, k, C, D]`.
    stride: of the windows, in both directions.
    padding: zeros on each side.
    form: "lax" (XLA's convolution), "patches" (copies and one product; it
      keeps `k * k / stride^2` times the size of `x` for the gradient), or
      "auto": "patches" where JAX's default backend is a CPU.
    dot: "float32", or "bfloat16" for products of bfloat16 summed in float32;
      "lax" then rounds the result to bfloat16 as well.

  Returns:
    `[D, h, w, N]` in the dtype of `x`, with
    `h = (H + 2 * padding - k) // stride + 1`.

  Raises:
    ValueError: for a form or dot that does not exist, or an image smaller than
      the kernel.
  """
  if form not in FORMS:
    raise ValueError(f"form must be one of {', '.join(FORMS)}, got {form!r}")
  if dot not in DOTS:
    raise ValueError(f"dot must be one of {', '.join(DOTS)}, got {dot!r}")
  size = kernel.shape[0]
  if min(x.shape[1:3]) + 2 * padding < size:
    raise ValueError(
      f"a {x.shape[1]}x{x.shape[2]} map is too small for a {size}x{size} "
      "convolution: give larger images or fewer stages"
    )
  if padding >= size > 1:
    raise ValueError(f"padding {padding} must be less than the kernel's {size}")
  if form == "auto":
    form = "patches" if jax.default_backend() == "cpu" else "lax"
  dtype = jnp.dtype(dot)
  if form == "lax":
    y = lax.conv_general_dilated(
      x.astype(dtype),
      kernel.astype(dtype),
      (stride, stride),
      [(padding, padding)] * 2,
      dimension_numbers=("CHWN", "HWIO", "CHWN"),
    )
    return y.astype(x.dtype)
  if size == 1:
    x, stride = x[:, ::stride, ::stride], 1
  return _patch_convolution(
    x.astype(jnp.float32), kernel, stride, padding, dtype
  ).astype(x.dtype)


def _patches(x, size, stride, borders, dtype):
  """Copies the windows of `[C, H, W, N]` into `[size^2 * C, h, w, N]`."""
  x = x.astype(dtype)
  if dtype == jnp.bfloat16:
    # As bits: XLA's CPU backend would copy bfloat16 by way of float32.
    x = lax.bitcast_convert_type(x, jnp.uint16)
  x = jnp.pad(x, ((0, 0), *borders, (0, 0)))
  h, w = ((side - size) // stride + 1 for side in x.shape[1:3])
  rows, columns = (h - 1) * stride + 1, (w - 1) * stride + 1
  patches = jnp.concatenate(
    [
      x[:, i : i + rows : stride, j : j + columns : stride]
      for i in range(size)
      for j in range(size)
    ]
  )
  return lax.bitcast_convert_type(patches, dtype)


def _product(a: jax.Array, b: jax.Array, contract_b: int) -> jax.Array:
  """Contracts axis 1 of a matrix with one of another, summing in float32.

  Matrices, for XLA's CPU backend has no bfloat16 product of more axes.
  """
  return lax.dot_general(
    a,
    b,
    (((1,), (contract_b,)), ((), ())),
    preferred_element_type=jnp.float32,
  )


def _apply(weights: list[jax.Array], patches: jax.Array) -> jax.Array:
  """Multiplies `[D, size^2 * C]`, given as `size^2` parts, with patches."""
  # Joined after each is transposed, so that the matrix lies row by row: XLA's
  # CPU backend folds one transposition into the product and then multiplies
  # bfloat16 as float32.
  weights = jnp.concatenate(weights, axis=1).astype(patches.dtype)
  y = _product(weights, patches.reshape(patches.shape[0], -1), 0)
  return y.reshape(-1, *patches.shape[1:])


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def _patch_convolution(x, kernel, stride, padding, dtype):
  return _forward(x, kernel, stride, padding, dtype)[0]


def _forward(x, kernel, stride, padding, dtype):
  size = kernel.shape[0]
  patches = _patches(x, size, stride, [(padding, padding)] * 2, dtype)
  parts = [kernel[i, j].T for i in range(size) for j in range(size)]
  return _apply(parts, patches), (patches, kernel, x.shape[1:3])


def _backward(stride, padding, dtype, saved, g):
  patches, kernel, sides = saved
  size, _, channels, features = kernel.shape
  # A product of bfloat16 needs both operands in it, the cotangent too.
  kernel_gradient = _product(
    patches.reshape(patches.shape[0], -1),
    g.astype(dtype).reshape(features, -1),
    1,
  )
  # With a kernel of whole strides (zeros at its end change no output), row
  # `stride * q + u` of the padded image meets kernel row `stride * a + u` of
  # window `q - a`: for every remainder `u` a convolution of `g` with the rows
  # `a`, flipped. The image lies in the rows `q` from `first` on.
  extra = -size % stride
  kernel = jnp.pad(kernel, ((0, extra), (0, extra), (0, 0), (0, 0)))
  reach = (size + extra) // stride
  kernel = kernel.reshape(reach, stride, reach, stride, channels, features)
  parts = [
    kernel[a, :, b].reshape(-1, features)
    for a in reversed(range(reach))
    for b in reversed(range(reach))
  ]
  first = padding // stride
  borders = [
    (reach - 1 - first, (padding + side - 1) // stride - (rows - 1))
    for side, rows in zip(sides, g.shape[1:3])
  ]
  x_gradient = _apply(parts, _patches(g, reach, 1, borders, dtype))
  h, w, n = x_gradient.shape[1:]
  x_gradient = x_gradient.reshape(stride, stride, channels, h, w, n)
  x_gradient = x_gradient.transpose(2, 3, 0, 4, 1, 5)
  x_gradient = x_gradient.reshape(channels, stride * h, stride * w, n)
  start = padding - stride * first
  x_gradient = x_gradient[:, start : start + sides[0], start : start + sides[1]]
  return x_gradient, kernel_gradient.reshape(size, size, channels, features)


_patch_convolution.defvjp(_forward, _backward)
