"""Softmax attention, by XLA or by cuDNN."""

import jax
import jax.numpy as jnp

from jlejepa.encoders.types import Array

ATTENTIONS = ("xla", "cudnn")


def attend(query: Array, key: Array, value: Array, form: str) -> Array:
  """Computes softmax attention, `[N, T, heads, D]`; its softmax is float32.

  "cudnn" is one fused kernel that never stores the `T x T` scores. cuDNN has
  it for bfloat16 on NVIDIA GPUs; everything else gets XLA's.
  """
  if (
    form == "cudnn"
    and query.dtype == jnp.bfloat16
    and jax.default_backend() == "gpu"
  ):
    return padded_attention(query, key, value, "cudnn")
  if query.dtype == jnp.float32 and jax.default_backend() == "cpu":
    return heads_first(query, key, value)
  return jax.nn.dot_product_attention(query, key, value)


@jax.custom_vjp
def heads_first(query: Array, key: Array, value: Array) -> Array:
  """Computes `jax.nn.dot_product_attention` as plain products of every head.

  For CPUs: JAX's own products turn their operands each time, and its gradient
  keeps more of them. Differentiable in reverse mode only.
  """
  return _forward(query, key, value)[0]


def _forward(query, key, value):
  query = query * query.shape[-1] ** -0.5
  query, key, value = map(_turn, (query, key, value))
  weights = jax.nn.softmax(_product(query, key, 3, 3))
  saved = (query, key, value, weights)
  return _turn(_product(weights, value, 3, 2)), saved


def _backward(saved, g):
  query, key, value, weights = saved
  g = _turn(g)
  along = weights * _product(g, value, 3, 3)
  of_scores = along - weights * along.sum(-1, keepdims=True)
  of_query = _product(of_scores, key, 3, 2) * query.shape[-1] ** -0.5
  gradients = (
    of_query,
    _product(of_scores, query, 2, 2),
    _product(weights, g, 2, 2),
  )
  return tuple(map(_turn, gradients))


heads_first.defvjp(_forward, _backward)


def _turn(x):
  return jnp.swapaxes(x, 1, 2)


def _product(x, y, x_axis, y_axis):
  """Sums over one axis of each, for every example and head."""
  return jax.lax.dot_general(x, y, (((x_axis,), (y_axis,)), ((0, 1), (0, 1))))


def padded_attention(
  query: Array, key: Array, value: Array, implementation: str
) -> Array:
  """Computes attention over an even number of tokens: JAX trains cuDNN's so.

  An odd one gets one more, which is masked and cut off again.
  """
  tokens = query.shape[1]
  odd, lengths = tokens % 2, None
  if odd:
    lengths = jnp.full(len(query), tokens, jnp.int32)
  pad = lambda x: jnp.pad(x, ((0, 0), (0, odd), (0, 0), (0, 0)))
  mixed = jax.nn.dot_product_attention(
    pad(query),
    pad(key),
    pad(value),
    query_seq_lengths=lengths,
    key_value_seq_lengths=lengths,
    implementation=implementation,
  )
  return mixed[:, :tokens]
