"""Random bits of Threefry that XLA's CPU backend makes in one pass."""

import math

import jax
import jax.extend.random
import jax.numpy as jnp
import numpy as np

_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
_PARITY = np.uint32(0x1BD11BDA)
_DEFAULT = "threefry2x32"


def one_pass(key: jax.Array) -> jax.Array:
  """Returns a key with the same random numbers, which take less time on a CPU.

  There JAX rolls the rounds of the hash into a loop, which reads and writes
  all words five times; unrolled they are one loop over the words, which XLA
  joins with what uses them. A large array of bits takes a half to an eighth of
  the time (`python -m benchmarks.sigreg --parts`).

  Args:
    key: a typed key or an array of them.

  Returns:
    The key to give to `jax.random`; `key` itself on other devices, where the
    rounds are unrolled, and for another kind of generator.
  """
  rolled = (
    jax.default_backend() == "cpu" and jax.config.jax_threefry_partitionable
  )
  if not rolled or str(jax.random.key_impl(key)) != _DEFAULT:
    return key
  return jax.random.wrap_key_data(jax.random.key_data(key), impl=_UNROLLED)


def _random_bits(key, bit_width, shape):
  size = math.prod(shape)
  if bit_width != 32 or size >= 2**32:
    dtype = jnp.dtype(f"uint{bit_width}")
    return jax.random.bits(_wrap(key), shape, dtype)
  low = jax.lax.iota(jnp.uint32, size).reshape(shape)
  first, second = _hash(key[0], key[1], jnp.zeros_like(low), low)
  return first ^ second


def _hash(key0, key1, x0, x1):
  """Threefry-2x32 with 20 rounds (Salmon et al. 2011)."""
  keys = (key0, key1, key0 ^ key1 ^ _PARITY)
  x0, x1 = x0 + keys[0], x1 + keys[1]
  for i in range(5):
    for bits in _ROTATIONS[i % 2]:
      x0 = x0 + x1
      x1 = (x1 << np.uint32(bits)) | (x1 >> np.uint32(32 - bits))
      x1 = x0 ^ x1
    x0 = x0 + keys[(i + 1) % 3]
    x1 = x1 + keys[(i + 2) % 3] + np.uint32(i + 1)
  return x0, x1


def _wrap(key):
  return jax.random.wrap_key_data(key, impl=_DEFAULT)


def _split(key, shape):
  return jax.random.key_data(jax.random.split(_wrap(key), shape))


def _fold_in(key, data):
  return jax.random.key_data(jax.random.fold_in(_wrap(key), data))


def _seed(seed):
  return jax.random.key_data(jax.random.key(seed, impl=_DEFAULT))


_UNROLLED = jax.extend.random.define_prng_impl(
  key_shape=(2,),
  seed=_seed,
  split=_split,
  random_bits=_random_bits,
  fold_in=_fold_in,
  name="threefry2x32_one_pass",
  tag="t1p",
)
