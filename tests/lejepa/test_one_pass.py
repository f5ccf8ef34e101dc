"""The faster generator gives JAX's own numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jlejepa.one_pass import one_pass

KEY = jax.random.key(7)
DRAWS = {
  "bits": lambda key: jax.random.bits(key, (5, 7)),
  "bytes": lambda key: jax.random.bits(key, (9,), jnp.uint8),
  "normal": lambda key: jax.random.normal(key, (3, 5)),
  "one": lambda key: jax.random.uniform(key),
  "none": lambda key: jax.random.normal(key, (0, 3)),
  "large": lambda key: jax.random.normal(key, (257, 1025)),
  "bernoulli": lambda key: jax.random.bernoulli(key, 0.3, (64,)),
  "randint": lambda key: jax.random.randint(key, (64,), 0, 1000),
  "permutation": lambda key: jax.random.permutation(key, 64),
  "split": lambda key: jax.vmap(jax.random.normal)(jax.random.split(key, 3)),
  "fold": lambda key: jax.random.normal(jax.random.fold_in(key, 9), (4,)),
}


@pytest.mark.parametrize("name", DRAWS)
def test_numbers_are_those_of_jax(name):
  draw = DRAWS[name]
  expected = draw(KEY)
  for key in (one_pass(KEY), one_pass(one_pass(KEY))):
    np.testing.assert_array_equal(draw(key), expected)
    np.testing.assert_array_equal(jax.jit(draw)(key), expected)


def test_a_batch_of_keys_is_as_a_loop():
  keys = jax.random.split(KEY, 4)
  draw = lambda key: jax.random.normal(one_pass(key), (6,))
  loop = [jax.random.normal(key, (6,)) for key in keys]
  np.testing.assert_array_equal(jax.jit(jax.vmap(draw))(keys), loop)
  np.testing.assert_array_equal(
    jax.vmap(lambda key: jax.random.normal(key, (6,)))(one_pass(keys)), loop
  )


def test_known_answer_of_the_authors():
  """Random123's test vectors for `threefry2x32` with 20 rounds."""
  from jlejepa.one_pass import _hash

  ones = np.uint32(0xFFFFFFFF)
  cases = {
    (0, 0, 0, 0): (0x6B200159, 0x99BA4EFE),
    (ones, ones, ones, ones): (0x1CB996FC, 0xBB002BE7),
    (0x13198A2E, 0x03707344, 0x243F6A88, 0x85A308D3): (0xC4923A9C, 0x483DF7A0),
  }
  for words, expected in cases.items():
    made = _hash(*(jnp.uint32(word) for word in words))
    assert tuple(map(int, made)) == expected


def test_the_rounds_are_no_loop():
  draw = jax.jit(lambda key: jax.random.bits(key, (8, 8)))
  assert "while" not in draw.lower(one_pass(KEY)).as_text()


def test_other_generators_and_devices_keep_their_keys(monkeypatch):
  other = jax.random.key(0, impl="rbg")
  assert one_pass(other) is other
  with jax.threefry_partitionable(False):
    assert one_pass(KEY) is KEY
  monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
  assert one_pass(KEY) is KEY
