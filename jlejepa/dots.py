"""Matrix products of networks: of float32, or bfloat16 summed in float32.

"float32" is JAX's default precision: exact on a CPU, but TF32 on a GPU and
bfloat16 on a TPU unless `jax.default_matmul_precision` says otherwise. Networks
bear that. Losses, KL and SIGReg do not go through here: they are float32.

"auto" stands for one of the two in a configuration (`resolve`).
"""

import functools
import math

import jax
import jax.numpy as jnp
from jax import lax

from jlejepa.runtime.processor import vector_sets


def bf16_dot_general(x, y, dimension_numbers, precision=None, **_):
  """Multiplies in bfloat16 and accumulates in float32.

  On CPU only a bfloat16 product with a float32 result reaches the matrix
  units; a bfloat16 result is computed as float32 with conversions around it.
  """
  del precision
  return lax.dot_general(
    x.astype(jnp.bfloat16),
    y.astype(jnp.bfloat16),
    dimension_numbers,
    preferred_element_type=jnp.float32,
  )


@jax.custom_vjp
def bf16_product(x, kernel):
  """Multiplies `[N, I]` by `[I, O]` in bfloat16, summed in float32.

  So are its gradients. JAX would multiply a float32 cotangent by a bfloat16
  matrix, at the speed of float32, and round the sum to bfloat16.
  """
  return bf16_dot_general(x, kernel, (((1,), (0,)), ((), ())))


def _forward(x, kernel):
  return bf16_product(x, kernel), (x, kernel)


def _backward(saved, g):
  x, kernel = saved
  dx = bf16_dot_general(g, kernel, (((1,), (1,)), ((), ())))
  dkernel = bf16_dot_general(x, g, (((0,), (0,)), ((), ())))
  return dx.astype(x.dtype), dkernel.astype(kernel.dtype)


bf16_product.defvjp(_forward, _backward)


def flattened(dot_general, product=None):
  """Makes one matrix of a batch of vectors before it multiplies a matrix.

  XLA's CPU backend is slower at a kernel's gradient over several leading axes
  than over one. `product` multiplies two matrices, by default as `dot_general`.
  """

  @functools.wraps(dot_general)
  def multiply(x, y, dimension_numbers, precision=None, **options):
    dot = functools.partial(dot_general, precision=precision, **options)
    dense = (((x.ndim - 1,), (0,)), ((), ()))
    if x.ndim < 2 or y.ndim != 2 or dimension_numbers != dense:
      return dot(x, y, dimension_numbers)
    flat = x.reshape(math.prod(x.shape[:-1]), x.shape[-1])
    if product is None:
      made = dot(flat, y, (((1,), (0,)), ((), ())))
    else:
      made = product(flat, y)
    return made.reshape(*x.shape[:-1], y.shape[1])

  return multiply


DOTS = {
  "float32": flattened(lax.dot_general),
  "bfloat16": flattened(bf16_dot_general, bf16_product),
}


def resolve(dot: str) -> str:
  """Returns the name of `DOTS` that "auto" stands for here, or `dot` itself.

  That is "bfloat16" on accelerators and on processors that multiply it. Others
  make float32 of it first: a plan then takes half as long again as in float32,
  a step of a small ViT a quarter (`benchmarks/README.md`).
  """
  if dot != "auto":
    return dot
  on_cpu = jax.default_backend() == "cpu"
  multiplies = {"avx512_bf16", "amx_bf16"}.intersection(vector_sets())
  return "bfloat16" if multiplies or not on_cpu else "float32"
