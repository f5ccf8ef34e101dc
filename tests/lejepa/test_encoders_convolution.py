"""The convolution of the encoders: both forms, against numpy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jlejepa.encoders.convolution import convolve

# Side of the kernel, stride, padding, side of the map.
CASES = [
  (4, 2, 1, 8),
  (4, 2, 1, 7),  # A row that no window reaches.
  (3, 1, 1, 5),
  (1, 1, 0, 4),
  (1, 2, 0, 5),
  (3, 2, 1, 6),  # The stride does not divide the kernel.
  (7, 2, 3, 9),
]


def by_hand(x, kernel, stride, padding):
  """Correlates one window at a time."""
  x = np.pad(x, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
  size = kernel.shape[0]
  side = (x.shape[1] - size) // stride + 1
  y = np.zeros((kernel.shape[-1], side, side, x.shape[-1]))
  for i in range(side):
    for j in range(side):
      rows, columns = i * stride, j * stride
      window = x[:, rows : rows + size, columns : columns + size]
      y[:, i, j] = np.einsum("cuvn,uvcd->dn", window, kernel)
  return y


def arrays(size, side, channels=3, features=2, n=5):
  rng = np.random.default_rng(size + side)
  x = rng.normal(size=(channels, side, side, n)).astype(np.float32)
  kernel = rng.normal(size=(size, size, channels, features))
  return x, kernel.astype(np.float32)


@pytest.mark.parametrize("form", ["lax", "patches"])
@pytest.mark.parametrize("size, stride, padding, side", CASES)
def test_a_convolution_is_the_sum_over_its_windows(
  form, size, stride, padding, side
):
  x, kernel = arrays(size, side)
  y = convolve(x, kernel, stride=stride, padding=padding, form=form)
  expected = by_hand(x, kernel, stride, padding)
  np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("size, stride, padding, side", CASES)
def test_both_forms_have_the_same_gradients(size, stride, padding, side):
  x, kernel = arrays(size, side)
  gradients = []
  for form in ("lax", "patches"):

    def loss(x, kernel, form=form):
      y = convolve(x, kernel, stride=stride, padding=padding, form=form)
      return jnp.sum(jnp.sin(y))

    gradients.append(jax.jit(jax.grad(loss, (0, 1)))(x, kernel))
  for a, b in zip(*gradients):
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


def test_bfloat16_products_are_summed_in_float32():
  # 4096 products of 1 in bfloat16 sums would stop at 256.
  x = jnp.ones((256, 4, 4, 2))
  y = convolve(x, jnp.ones((4, 4, 256, 1)), form="patches", dot="bfloat16")
  assert y.dtype == jnp.float32
  np.testing.assert_array_equal(y, np.full((1, 1, 1, 2), 4096.0))


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("form", ["lax", "patches"])
def test_bfloat16_is_close_and_keeps_the_dtypes(form, dtype):
  x, kernel = arrays(4, 8, channels=16, features=8)
  x = jnp.asarray(x, dtype)

  def loss(x, kernel, dot):
    y = convolve(x, kernel, stride=2, padding=1, form=form, dot=dot)
    assert y.dtype == dtype
    return jnp.mean(jnp.square(y.astype(jnp.float32)))

  run = jax.jit(jax.value_and_grad(loss, (0, 1)), static_argnums=2)
  value, gradients = run(x, kernel, "bfloat16")
  exact, exact_gradients = run(x.astype(dtype), kernel, "float32")
  np.testing.assert_allclose(value, exact, rtol=0.02)
  for g, e, like in zip(gradients, exact_gradients, (x, kernel)):
    assert g.dtype == like.dtype
    error = jnp.linalg.norm((g - e).astype(jnp.float32))
    assert error < 0.02 * jnp.linalg.norm(e.astype(jnp.float32))


@pytest.mark.parametrize(
  "options, message",
  [
    (dict(form="Lax"), "form must be one of"),
    (dict(dot="float16"), "dot must be one of"),
    (dict(padding=0), "2x2 map is too small for a 4x4"),
  ],
)
def test_what_cannot_be_convolved_is_refused(options, message):
  x, kernel = arrays(4, 2)
  with pytest.raises(ValueError, match=message):
    convolve(x, kernel, **options)
