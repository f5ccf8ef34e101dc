"""Encoders in bfloat16, BatchNorm's statistics, and drop path."""

import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jlejepa.encoders import make_encoder
from jlejepa.encoders.layers import DropPath, batch_norm, drop_rates

OPTIONS = {
  "vit": dict(size="mini", patch=4, image=16, drop_path=0.0),
  "resnet": dict(stem="small", form="lax"),
  "convnext": dict(size="atto", patch=1, drop_path=0.0),
}


def images(count, side):
  rng = np.random.default_rng(0)
  return rng.normal(size=(count, side, side, 3)).astype(np.float32)


@pytest.mark.parametrize(
  "name, low, full",
  [
    ("vit", "dot_general erfc", "exp reduce_sum"),
    ("resnet", "conv_general_dilated max", "reduce_sum"),
    ("convnext", "conv_general_dilated dot_general erfc", "reduce_sum"),
  ],
)
def test_what_is_bfloat16_and_what_is_float32(name, low, full):
  encoder = make_encoder(name, dtype="bfloat16", **OPTIONS[name])
  x = jax.ShapeDtypeStruct((2, 16, 16, 3), jnp.float32)
  variables = jax.eval_shape(encoder.init, jax.random.key(0), x)
  assert {leaf.dtype.name for leaf in jax.tree.leaves(variables)} == {"float32"}

  def apply(variables, x):
    return encoder.apply(variables, x, train=True)

  features, stats = jax.eval_shape(apply, variables, x)
  assert {leaf.dtype.name for leaf in (*features, *jax.tree.leaves(stats))} == {
    "float32"
  }
  program = str(jax.make_jaxpr(apply)(variables, x))
  dtypes = lambda operation: set(
    re.findall(rf":(\w+)\[[\d,]*\] = {operation}\b", program)
  )
  for operation in low.split():
    # Attention keeps the float32 sums of its products for the softmax.
    attention = operation == "dot_general" and name == "vit"
    wanted = {"bf16", "f32"} if attention else {"bf16"}
    assert dtypes(operation) == wanted, operation
  for operation in full.split():
    assert dtypes(operation) == {"f32"}, operation


@pytest.mark.slow
@pytest.mark.parametrize("name", OPTIONS)
def test_bfloat16_is_float32_to_four_percent(name):
  x = images(8, 16)
  both = [
    make_encoder(name, dtype=dtype, **OPTIONS[name])
    for dtype in ("float32", "bfloat16")
  ]
  variables = jax.jit(both[0].init)(jax.random.key(0), x)
  exact, close = (
    jax.jit(lambda v, x, e=encoder: e.apply(v, x, train=True))(variables, x)
    for encoder in both
  )
  for a, b in zip(jax.tree.leaves(exact), jax.tree.leaves(close)):
    error = jnp.linalg.norm(a - b) / jnp.linalg.norm(a)
    assert 0 < error < 0.04


class Norm(nn.Module):
  @nn.compact
  def __call__(self, x):
    return batch_norm(x, True, 0, "norm")


def test_statistics_of_bfloat16_far_from_zero_are_float32():
  # A sum in bfloat16 would stop at 256 times its terms, and
  # E[x^2] - E[x]^2 of float32 would lose the fourth digit.
  x = 100 + np.random.default_rng(0).normal(size=(2, 8, 8, 128))
  x = jnp.asarray(x, jnp.bfloat16)
  exact = np.float64(x)
  mean, var = exact.mean((1, 2, 3)), exact.var((1, 2, 3))
  variables = Norm().init(jax.random.key(0), x)
  y, new = Norm().apply(variables, x, mutable=["batch_stats"])
  assert y.dtype == jnp.bfloat16
  stats = new["batch_stats"]["norm"]
  np.testing.assert_allclose(stats["mean"], 0.1 * mean, rtol=1e-6)
  np.testing.assert_allclose(stats["var"], 0.9 + 0.1 * var, rtol=1e-6)
  wanted = exact - mean[:, None, None, None]
  wanted /= np.sqrt(var + 1e-5)[:, None, None, None]
  # Eight bits: the last one is worth 2^-8 of the value at most.
  np.testing.assert_allclose(np.float64(y), wanted, rtol=2**-8)


def test_drop_path_keeps_whole_examples_and_the_mean():
  x = np.random.default_rng(0).normal(size=(4000, 3, 2)).astype(np.float32)
  drop = lambda key, train: DropPath(0.3).apply(
    {}, x, train, rngs={"drop_path": key}
  )
  y = np.asarray(drop(jax.random.key(0), True))
  kept = (y != 0).any((1, 2))
  np.testing.assert_allclose(y[kept], x[kept] / 0.7, rtol=1e-6)
  # Three standard deviations of 4,000 coins.
  assert abs(kept.mean() - 0.7) < 3 * np.sqrt(0.3 * 0.7 / 4000)
  other = np.asarray(drop(jax.random.key(1), True))
  assert abs((kept == (other != 0).any((1, 2))).mean() - 0.58) < 0.03
  np.testing.assert_array_equal(drop(jax.random.key(0), False), x)


def test_drop_path_wants_a_key_in_training_alone():
  encoder = make_encoder("vit", **OPTIONS["vit"] | dict(drop_path=0.1))
  x = jax.ShapeDtypeStruct((2, 16, 16, 3), jnp.float32)
  variables = jax.eval_shape(encoder.init, jax.random.key(0), x)
  jax.eval_shape(encoder.apply, variables, x)
  with pytest.raises(ValueError, match="needs a key in training"):
    jax.eval_shape(lambda *a: encoder.apply(*a, train=True), variables, x)


def test_the_rate_rises_from_nothing_at_the_first_block():
  np.testing.assert_allclose(drop_rates(0.2, 5), [0, 0.05, 0.1, 0.15, 0.2])
  assert drop_rates(0.2, 1) == [0]


@pytest.mark.slow
@pytest.mark.parametrize(
  "name, options, unchanged",
  [
    ("vit", {}, 0.8**2),  # Both of its branches are dropped.
    ("convnext", dict(grn=True), 0.8),
  ],
)
def test_the_last_block_drops_at_the_rate_asked_for(name, options, unchanged):
  options = OPTIONS[name] | dict(drop_path=0.8) | options
  encoder, count = make_encoder(name, **options), 300
  x = images(count, 8)
  variables = jax.jit(encoder.init)(jax.random.key(0), x)
  apply = jax.jit(lambda *args, key: encoder.apply(*args, train=True, key=key))
  features, _ = apply(variables, x, key=jax.random.key(1))
  same = np.all(np.equal(features.embedding, features.previous), axis=1)
  spread = np.sqrt(unchanged * (1 - unchanged) / count)
  assert abs(same.mean() - unchanged) < 3 * spread
