"""What a loss does not read of a vision transformer's last block.

It is left out of the program, and that changes no gradient.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jlejepa.encoders.layers import from_module
from jlejepa.encoders.vit import Size, ViT

COUNT, GRID, WIDTH, MLP = 100, 4, 32, 128


def make(
  registers=0, pool="cls", drop_path=0.6, layer_scale=0.0, dot="float32"
):
  """Makes an encoder of two blocks, of which the last may drop, and inputs."""
  size, rest = Size(WIDTH, 2, 2, MLP), (dot, "float32", "xla")
  encoder = from_module(
    ViT(size, 4, GRID, registers, pool, drop_path, layer_scale, *rest)
  )
  x = jax.random.normal(jax.random.key(0), (COUNT, 4 * GRID, 4 * GRID, 3))
  variables = jax.jit(encoder.init)(jax.random.key(1), x)
  return encoder, (variables, x, jax.random.key(2))


def gradient(read, **options):
  """Compiles the gradient of a loss of the features that `read` returns."""
  encoder, args = make(**options)

  def loss(variables, x, key):
    features, _ = encoder.apply(variables, x, train=True, key=key)
    return sum(jnp.sin(1 + value).sum() for value in read(features))

  return jax.jit(jax.grad(loss)).lower(*args).compile(), args


@pytest.mark.slow
def test_patches_that_no_loss_reads_cost_nothing():
  # Products in bfloat16 have gradients of their own, to be left out as well.
  def count(read):
    program, _ = gradient(read, dot="bfloat16")
    return program.cost_analysis()["flops"]

  saved = count(lambda f: f) - count(lambda f: [f.embedding])
  tokens = 1 + GRID**2
  # After attention's input, of one patch: output and MLP, scores and mixing.
  products = WIDTH**2 + 2 * WIDTH * MLP + 2 * tokens * WIDTH
  assert saved > 3 * 2 * products * COUNT * GRID**2


@pytest.mark.slow
@pytest.mark.parametrize(
  "options", [dict(layer_scale=0.1, registers=2), dict(pool="mean")]
)
def test_what_is_left_out_changes_no_gradient(options):
  embedding = lambda features: [features.embedding]
  # A weight of nothing, but the compiler does not know it.
  whole = lambda features: [
    features.embedding,
    jnp.where(features.tokens > 1e9, features.tokens, 0.0),
  ]
  found, wanted = (
    program(*args)
    for program, args in (
      gradient(read, **options) for read in (embedding, whole)
    )
  )
  jax.tree.map(
    functools.partial(np.testing.assert_allclose, rtol=1e-3, atol=2e-5),
    found,
    wanted,
  )


def test_an_example_is_dropped_with_all_of_its_tokens():
  def unchanged(pool):
    encoder, (variables, x, key) = make(pool=pool)
    apply = jax.jit(functools.partial(encoder.apply, train=True))
    features, _ = apply(variables, x, key=key)
    change = features.embedding - features.previous
    return np.abs(change).max(1) < 1e-6

  of_cls, of_patches = unchanged("cls"), unchanged("mean")
  assert 15 < of_cls.sum() < 60  # Both branches: 0.36 of 100.
  np.testing.assert_array_equal(of_cls, of_patches)
