"""Gaussian latents and Ornstein-Uhlenbeck views: LeJEPA finds the latents.

With latents `z ~ N(0, I)` seen through an unknown mixing, and views that share
`z` but for Ornstein-Uhlenbeck noise, the embedding that is Gaussian and as
invariant as it can be is a rotation of `z` (Klindt, LeCun and Balestriero 2026,
arXiv 2605.26379).
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jlejepa

D, B, RHO, STEPS = 4, 512, 0.8, 1500


def mix(z):
  """An invertible map: turn, bend every coordinate, turn again."""
  first, second = (
    jnp.linalg.qr(jax.random.normal(jax.random.key(i), (D, D)))[0]
    for i in (7, 8)
  )
  return jnp.sinh(z @ first) @ second


def apply(params, x):
  for w, b in params[:-1]:
    x = jax.nn.gelu(x @ w + b)
  w, b = params[-1]
  return x @ w + b


def init(key):
  sizes = (D, 128, 128, D)
  keys = jax.random.split(key, 3)
  return [
    (jax.random.normal(k, (m, n)) * (2 / m) ** 0.5, jnp.zeros(n))
    for k, m, n in zip(keys, sizes, sizes[1:])
  ]


def r_squared(found, wanted):
  """Of the best affine map from `found` to `wanted`, `[N, D]` both."""
  x = np.c_[found, np.ones(len(found))]
  fitted = x @ np.linalg.lstsq(x, wanted, rcond=None)[0]
  return (
    1 - ((wanted - fitted) ** 2).sum() / ((wanted - wanted.mean(0)) ** 2).sum()
  )


@pytest.mark.slow
def test_the_embedding_is_a_rotation_of_gaussian_latents():
  schedule = optax.cosine_decay_schedule(3e-3, STEPS)
  optimizer = optax.adam(schedule)

  def loss(params, key):
    latent_key, noise_key, slice_key = jax.random.split(key, 3)
    z = jax.random.normal(latent_key, (B, D))
    noise = jax.random.normal(noise_key, (2, B, D))
    views = mix(RHO * z + (1 - RHO**2) ** 0.5 * noise)
    return jlejepa.lejepa_loss(
      apply(params, views), slice_key, num_global=2, lam=0.003, num_slices=64
    )[0]

  def update(carry, key):
    params, state = carry
    value, grads = jax.value_and_grad(loss)(params, key)
    updates, state = optimizer.update(grads, state)
    return (optax.apply_updates(params, updates), state), value

  params = init(jax.random.key(0))
  z = np.asarray(jax.random.normal(jax.random.key(99), (4000, D)))
  before = r_squared(np.asarray(apply(params, mix(z))), z)
  keys = jax.random.split(jax.random.key(1), STEPS)
  run = jax.jit(lambda c, k: jax.lax.scan(update, c, k))
  (params, _), _ = run((params, optimizer.init(params)), keys)
  found = np.asarray(apply(params, mix(z)))
  after = r_squared(found, z)
  # Neither the mixture nor a random network is a linear map of the latents.
  assert r_squared(np.asarray(mix(z)), z) < 0.9
  assert before < 0.9
  assert after > 0.95, (before, after)
  # A rotation: the linear map has equal singular values.
  map_ = np.linalg.lstsq(found - found.mean(0), z - z.mean(0), rcond=None)[0]
  singular = np.linalg.svd(map_, compute_uv=False)
  assert singular.max() / singular.min() < 1.25
