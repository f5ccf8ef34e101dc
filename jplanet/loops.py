"""How a scan along time is laid out on the device at hand."""

import jax

# More would hardly save anything, and take longer to compile.
MOST = 12


def steps_per_turn(steps: int) -> int:
  """Returns the `unroll` of a `lax.scan` of `steps` steps, which it divides.

  A GPU waits for its kernels to be launched, and at PlaNet's sizes half of them
  only move what a step reads and writes, or count. Steps that make one turn of
  the loop share those (`python -m benchmarks.gpu_kernels`). Elsewhere, 1.
  """
  if jax.default_backend() != "gpu":
    return 1
  few = range(min(MOST, steps), 0, -1)
  return next((n for n in few if steps % n == 0), 1)
