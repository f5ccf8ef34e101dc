"""Attention's forms.

On a CPU `attend` puts heads first, and `padded_attention` is JAX's own.

cuDNN's own kernel runs on no CPU: what is tested is what is put around it.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jlejepa.encoders.attention import attend, padded_attention
from jlejepa.encoders.vit import make_vit


def inputs(tokens, dtype=jnp.float32):
  keys = jax.random.split(jax.random.key(0), 3)
  return [jax.random.normal(k, (2, tokens, 3, 8), dtype) for k in keys]


def loss(attention, form):
  def of(arrays):
    mixed = attention(*arrays, form)
    return jnp.sum(jnp.sin(mixed)), mixed

  return jax.value_and_grad(of, has_aux=True)


@pytest.mark.parametrize("tokens", [6, 7])
def test_one_more_token_changes_no_value_and_no_gradient(tokens):
  x = inputs(tokens)
  (_, mixed), gradient = loss(padded_attention, "xla")(x)
  (_, expected), expected_gradient = loss(attend, "xla")(x)
  np.testing.assert_allclose(mixed, expected, atol=1e-6)
  for got, wanted in zip(gradient, expected_gradient):
    np.testing.assert_allclose(got, wanted, atol=1e-6)


def test_attention_is_the_mean_of_the_values_by_softmax():
  query, key, value = inputs(5)
  score = np.einsum("nthd,nshd->nhts", query, key) / np.sqrt(8)
  weight = np.exp(score) / np.exp(score).sum(-1, keepdims=True)
  expected = np.einsum("nhts,nshd->nthd", weight, value)
  mixed = attend(query, key, value, "xla")
  np.testing.assert_allclose(mixed, expected, atol=1e-5)


@pytest.mark.skipif(jax.default_backend() == "gpu", reason="has the kernel")
def test_the_fused_kernel_gives_way_where_there_is_none():
  x = inputs(5, jnp.bfloat16)
  np.testing.assert_array_equal(attend(*x, "cudnn"), attend(*x, "xla"))


@pytest.mark.skipif(jax.default_backend() != "gpu", reason="needs the kernel")
def test_the_fused_kernel_agrees_with_the_plain_form():
  x = inputs(7, jnp.bfloat16)
  (_, mixed), gradient = loss(attend, "cudnn")(x)
  (_, expected), expected_gradient = loss(attend, "xla")(x)
  np.testing.assert_allclose(*map(np.float32, (mixed, expected)), atol=0.03)
  for pair in zip(gradient, expected_gradient):
    np.testing.assert_allclose(*map(np.float32, pair), atol=0.05)


def test_an_unknown_form_is_named():
  with pytest.raises(ValueError, match="unknown attention 'cudn'"):
    make_vit(attention="cudn")
