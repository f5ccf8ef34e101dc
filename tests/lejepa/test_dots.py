"""Matrix products of networks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from jlejepa.dots import DOTS, bf16_dot_general

PLAIN = {"float32": lax.dot_general, "bfloat16": bf16_dot_general}


@pytest.mark.parametrize("dot", DOTS)
@pytest.mark.parametrize("shape", [(3,), (4, 3), (2, 4, 3), (2, 0, 3)])
def test_a_batch_of_vectors_is_multiplied_as_each_of_them(dot, shape):
  x = jax.random.normal(jax.random.key(0), shape)
  kernel = jax.random.normal(jax.random.key(1), (3, 5))
  dims = (((len(shape) - 1,), (0,)), ((), ()))

  def evaluate(dot_general):
    function = lambda x, kernel: dot_general(x, kernel, dims)
    y, pull = jax.vjp(function, x, kernel)
    return y, *pull(jnp.cos(y))

  expected = evaluate(PLAIN[dot])
  for got, wanted in zip(evaluate(DOTS[dot]), expected, strict=True):
    assert got.dtype == jnp.float32
    np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-5)


def test_a_kernels_gradient_is_summed_over_one_axis():
  """XLA's CPU backend is slow at sums over several."""
  x, kernel = jnp.ones((2, 4, 3)), jnp.ones((3, 5))
  loss = lambda k: DOTS["float32"](x, k, (((2,), (0,)), ((), ()))).sum()
  text = str(jax.make_jaxpr(jax.grad(loss))(kernel))
  assert "([0], [0])" in text and "[0, 1]" not in text


def test_other_products_are_left_as_they_are():
  x, y = jnp.ones((2, 4, 3)), jnp.ones((2, 3, 5))
  dims = (((2,), (1,)), ((0,), (0,)))
  np.testing.assert_array_equal(
    DOTS["float32"](x, y, dims), lax.dot_general(x, y, dims)
  )
