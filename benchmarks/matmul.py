"""The rate of a large matrix product: what the hardware allows."""

import jax
import jax.numpy as jnp

from benchmarks.worker import Step


def product(dtype: str = "float32", size: int = 0) -> Step:
  """A square product in `dtype`, accumulated in float32."""
  size = size or (2048 if jax.default_backend() == "cpu" else 8192)
  keys = jax.random.split(jax.random.key(0))
  left, right = (
    jax.random.normal(key, (size, size)).astype(dtype) for key in keys
  )
  function = jax.jit(
    lambda a, b: jax.lax.dot(a, b, preferred_element_type=jnp.float32)
  )
  return Step(
    run=lambda: function(left, right).block_until_ready(),
    flop=2.0 * size**3,
  )
