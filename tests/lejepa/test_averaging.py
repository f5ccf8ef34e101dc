import jax
import jax.numpy as jnp
import numpy as np

from jlejepa.averaging import ema_update


def test_ema_begins_by_following_and_ends_at_its_decay():
  average, params = {"w": jnp.array([0.0])}, {"w": jnp.array([1.0])}
  # (1 + t) / (10 + t): 1/10 at t = 0, 2/11 at t = 1, above 0.99 from t = 890.
  for count, keep in ((0, 0.1), (1, 2 / 11), (10_000, 0.99)):
    result = ema_update(average, params, 0.99, count)
    np.testing.assert_allclose(result["w"], [1 - keep], rtol=1e-5)


def test_ema_of_constant_weights_is_those_weights_and_keeps_dtypes():
  params = {"w": jnp.array([0.3, -2.0]), "h": jnp.ones(2, jnp.bfloat16)}
  average = params
  for count in range(5):
    average = ema_update(average, params, 0.999, count)
  assert average["h"].dtype == jnp.bfloat16
  np.testing.assert_array_equal(average["w"], params["w"])


def test_ema_matches_a_float64_loop_under_jit():
  values = np.random.default_rng(1).normal(size=200)
  step = jax.jit(ema_update)
  average, expected = jnp.float32(values[0]), values[0]
  for t, value in enumerate(values):
    average = step(average, jnp.float32(value), 0.95, jnp.int32(t))
    keep = min(0.95, (1 + t) / (10 + t))
    expected = keep * expected + (1 - keep) * value
  np.testing.assert_allclose(average, expected, rtol=1e-4)
  assert step._cache_size() == 1
