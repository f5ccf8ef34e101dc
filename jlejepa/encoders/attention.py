"""Softmax attention of many heads, by XLA or by cuDNN."""

import functools

import jax
import jax.numpy as jnp

from jlejepa.encoders.types import Array

ATTENTIONS = ("xla", "cudnn")


def attend(qkv: Array, heads: int, form: str, split: int = 0) -> list[Array]:
  """Computes softmax attention in parts of the queries; its softmax is float32.

  Args:
    qkv: `[N, T, 3 * heads * D]`: queries, keys and values side by side.
    heads: how many.
    form: "cudnn" is one fused kernel that never stores the `T x T` scores.
      cuDNN has it for bfloat16 on NVIDIA GPUs, and trains it with as many
      queries as keys alone; everything else gets XLA's.
    split: the first part has so many queries, the second the others; with 0
      all are one part.

  Returns:
    For each part `[N, t, heads * D]`.
  """
  on = jax.default_backend()
  if qkv.dtype == jnp.float32 and on == "cpu":
    axis, apart, mix = 2, heads_first, by_products
    join = lambda x: jnp.swapaxes(x, 1, 2)
  else:
    axis, apart, mix = 1, heads_last, jax.nn.dot_product_attention
    join = lambda x: x
    fits = qkv.dtype == jnp.bfloat16 and on == "gpu" and not split
    if form == "cudnn" and fits:
      mix = padded_attention
  query, key, value = apart(qkv, heads)
  parts = jnp.split(query, [split], axis) if split else [query]
  mixed = [join(mix(part, key, value)) for part in parts]
  return [x.reshape(*x.shape[:2], -1) for x in mixed]


def heads_last(qkv: Array, heads: int) -> Array:
  """Takes `[N, T, 3 * heads * D]` apart: `[3, N, T, heads, D]`."""
  return jnp.moveaxis(qkv.reshape(*qkv.shape[:2], 3, heads, -1), 2, 0)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def heads_first(qkv: Array, heads: int) -> tuple[Array, Array, Array]:
  """Takes it apart as three of `[N, heads, T, D]`, in one turn.

  JAX's own gradient pads each of the three to the size of all and adds them up.
  """
  split = qkv.reshape(*qkv.shape[:2], 3, heads, -1)
  query, key, value = split.transpose(2, 0, 3, 1, 4)
  return query, key, value


def _join_gradients(heads, _, gradients):
  turned = (jnp.swapaxes(g, 1, 2) for g in gradients)
  flat = [g.reshape(*g.shape[:2], -1) for g in turned]
  return (jnp.concatenate(flat, -1),)


heads_first.defvjp(
  lambda qkv, heads: (heads_first(qkv, heads), None), _join_gradients
)


@jax.custom_vjp
def by_products(query: Array, key: Array, value: Array) -> Array:
  """Computes attention of `[N, heads, T, D]` as plain products of every head.

  For CPUs: `jax.nn.dot_product_attention` turns their operands each time, and
  its gradient keeps more of them. Differentiable in reverse mode only.
  """
  return _forward(query, key, value)[0]


def _forward(query, key, value):
  query = query * query.shape[-1] ** -0.5
  weights = jax.nn.softmax(_product(query, key, 3, 3))
  return _product(weights, value, 3, 2), (query, key, value, weights)


def _backward(saved, g):
  query, key, value, weights = saved
  along = weights * _product(g, value, 3, 3)
  of_scores = along - weights * along.sum(-1, keepdims=True)
  return (
    _product(of_scores, key, 3, 2) * query.shape[-1] ** -0.5,
    _product(of_scores, query, 2, 2),
    _product(weights, g, 2, 2),
  )


by_products.defvjp(_forward, _backward)


def _product(x, y, x_axis, y_axis):
  """Sums over one axis of each, for every example and head."""
  return jax.lax.dot_general(x, y, (((x_axis,), (y_axis,)), ((0, 1), (0, 1))))


def padded_attention(
  query: Array, key: Array, value: Array, implementation: str = "cudnn"
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
