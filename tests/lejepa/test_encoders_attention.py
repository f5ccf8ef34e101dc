"""Attention's forms.

On a CPU `attend` puts heads first, and `padded_attention` is JAX's own.

cuDNN's own kernel runs on no CPU: what is tested is what is put around it.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jlejepa.encoders.attention import attend, heads_last, padded_attention
from jlejepa.encoders.vit import make_vit

HEADS = 3


def inputs(tokens, dtype=jnp.float32):
  shape = (2, tokens, 3 * HEADS * 8)
  return jax.random.normal(jax.random.key(0), shape, dtype)


def plain(qkv):
  """JAX's own attention, `[N, T, heads * D]`."""
  mixed = jax.nn.dot_product_attention(*heads_last(qkv, HEADS))
  return mixed.reshape(*mixed.shape[:2], -1)


def ours(qkv, form="xla", split=0):
  return jnp.concatenate(attend(qkv, HEADS, form, split), axis=1)


def padded(qkv):
  mixed = padded_attention(*heads_last(qkv, HEADS), "xla")
  return mixed.reshape(*mixed.shape[:2], -1)


def check(attention, wanted, x, tolerance):
  """Compares values and gradients."""

  def run(attention):
    def loss(x):
      mixed = attention(x)
      return jnp.sum(jnp.sin(mixed)), mixed

    (_, mixed), gradient = jax.value_and_grad(loss, has_aux=True)(x)
    return np.float32(mixed), np.float32(gradient)

  for found, expected in zip(run(attention), run(wanted)):
    np.testing.assert_allclose(found, expected, atol=tolerance)


@pytest.mark.slow
@pytest.mark.parametrize("tokens", [6, 7])
def test_one_more_token_changes_no_value_and_no_gradient(tokens):
  check(padded, plain, inputs(tokens), 1e-6)


@pytest.mark.parametrize("split", [0, 1, 4])
def test_parts_of_the_queries_change_no_value_and_no_gradient(split):
  x = inputs(7)
  check(functools.partial(ours, split=split), plain, x, 1e-6)
  lengths = [part.shape[1] for part in attend(x, HEADS, "xla", split)]
  assert lengths == ([split, 7 - split] if split else [7])


def test_attention_is_the_mean_of_the_values_by_softmax():
  x = inputs(5)
  query, key, value = np.moveaxis(np.reshape(x, (2, 5, 3, HEADS, 8)), 2, 0)
  score = np.einsum("nthd,nshd->nhts", query, key) / np.sqrt(8)
  weight = np.exp(score) / np.exp(score).sum(-1, keepdims=True)
  expected = np.einsum("nhts,nshd->nthd", weight, value)
  np.testing.assert_allclose(ours(x), expected.reshape(2, 5, -1), atol=1e-5)


@pytest.mark.skipif(jax.default_backend() == "gpu", reason="has the kernel")
def test_the_fused_kernel_gives_way_where_there_is_none():
  x = inputs(5, jnp.bfloat16)
  np.testing.assert_array_equal(ours(x, "cudnn"), ours(x, "xla"))


@pytest.mark.skipif(jax.default_backend() != "gpu", reason="needs the kernel")
@pytest.mark.parametrize("split", [0, 1])
def test_the_fused_kernel_agrees_with_the_plain_form(split):
  fused = functools.partial(ours, form="cudnn", split=split)
  check(fused, ours, inputs(7, jnp.bfloat16), 0.05)


def test_an_unknown_form_is_named():
  with pytest.raises(ValueError, match="unknown attention 'cudn'"):
    make_vit(attention="cudn")
