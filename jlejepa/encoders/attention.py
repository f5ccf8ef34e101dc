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
  return jax.nn.dot_product_attention(query, key, value)


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
