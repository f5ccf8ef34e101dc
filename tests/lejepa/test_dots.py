"""Matrix products of networks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from jlejepa import dots
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
  # Gradients of products in bfloat16 are such products themselves.
  near = 1e-5 if dot == "float32" or len(shape) < 2 else 2e-2
  for got, wanted in zip(evaluate(DOTS[dot]), expected, strict=True):
    assert got.dtype == jnp.float32
    np.testing.assert_allclose(got, wanted, rtol=near, atol=near)


def test_every_product_of_bfloat16_is_summed_in_float32():
  """As NumPy does it in float64, on numbers that bfloat16 holds exactly."""
  rng = np.random.default_rng(0)
  round_ = lambda x: np.asarray(jnp.asarray(x, jnp.bfloat16), np.float64)
  x, kernel = (
    round_(rng.normal(size=(300, 20))),
    round_(rng.normal(size=(20, 9))),
  )
  g = round_(rng.normal(size=(300, 9)))
  dims = (((1,), (0,)), ((), ()))
  arrays = [jnp.asarray(a, jnp.float32) for a in (x, kernel)]
  y, pull = jax.vjp(lambda *a: DOTS["bfloat16"](*a, dims), *arrays)
  dx, dkernel = pull(jnp.asarray(g, jnp.float32))
  for got, wanted in ((y, x @ kernel), (dx, g @ kernel.T), (dkernel, x.T @ g)):
    np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-5)


def test_no_gradient_of_a_bfloat16_layer_is_a_float32_product():
  x, kernel = jnp.ones((2, 4, 3)), jnp.ones((3, 5))
  loss = lambda *a: DOTS["bfloat16"](*a, (((2,), (0,)), ((), ()))).sum()
  jaxpr = jax.make_jaxpr(jax.grad(loss, (0, 1)))(x, kernel)
  products = [e for e in jaxpr.eqns if e.primitive.name == "dot_general"]
  assert len(products) == 2  # The value itself is not asked for.
  for product in products:
    assert {v.aval.dtype for v in product.invars} == {jnp.dtype("bfloat16")}
    assert product.outvars[0].aval.dtype == jnp.float32


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


@pytest.mark.parametrize(
  ("backend", "sets", "meant"),
  [
    ("cpu", [], "float32"),
    ("cpu", ["avx2", "avx512f"], "float32"),
    ("cpu", ["avx2", "avx512f", "avx512_bf16"], "bfloat16"),
    ("cpu", ["amx_bf16"], "bfloat16"),
    ("gpu", [], "bfloat16"),
    ("tpu", [], "bfloat16"),
  ],
)
def test_auto_is_bfloat16_where_it_is_multiplied(
  monkeypatch, backend, sets, meant
):
  monkeypatch.setattr(jax, "default_backend", lambda: backend)
  monkeypatch.setattr(dots, "vector_sets", lambda: sets)
  assert dots.resolve("auto") == meant
  assert [dots.resolve(name) for name in DOTS] == list(DOTS)
