"""Matrix products of networks: of float32, or bfloat16 summed in float32.

"float32" is JAX's default precision: exact on a CPU, but TF32 on a GPU and
bfloat16 on a TPU unless `jax.default_matmul_precision` says otherwise. Networks
bear that. Losses, KL and SIGReg do not go through here: they are float32.
"""

import jax.numpy as jnp
from jax import lax


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


DOTS = {"float32": lax.dot_general, "bfloat16": bf16_dot_general}
