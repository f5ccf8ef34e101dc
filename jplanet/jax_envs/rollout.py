"""A whole episode in one scan."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jplanet.jax_envs.base import JaxEnv
from jplanet.types import Array, Batch, Key

PolicyInit = Callable[[], Any]
PolicyStep = Callable[[Any, Array, Key], tuple[Array, Any]]


def episode(
  env: JaxEnv, policy_init: PolicyInit, policy_step: PolicyStep, key: Key
) -> Batch:
  """Plays one episode; `vmap` over keys plays many.

  Args:
    env: what to play.
    policy_init: `() -> carry`, the policy's memory at the start.
    policy_step: `(carry, image, key) -> (action [A], carry)`.
    key: consumed; the start of the episode depends on it alone.

  Returns:
    A `Batch` of `T + 1` entries for `T = env.episode_length`. Entry 0 is the
    reset: zero action, first image, zero reward. Entry `t` holds the action
    that led to image `t`, clipped to [-1, 1] as executed, and its reward.
  """
  reset_key, policy_key = jax.random.split(key)
  state = env.reset(reset_key)
  image = env.render(state)

  def decide(carry, key):
    state, image, memory = carry
    action, memory = policy_step(memory, image, key)
    action = jnp.clip(action, -1, 1)
    state, reward = env.step(state, action)
    image = env.render(state)
    entry = Batch(image=image, action=action, reward=reward)
    return (state, image, memory), entry

  keys = jax.random.split(policy_key, env.episode_length)
  _, entries = jax.lax.scan(decide, (state, image, policy_init()), keys)
  first = Batch(
    image=image, action=jnp.zeros(env.action_dim), reward=jnp.zeros(())
  )
  return jax.tree.map(
    lambda a, b: jnp.concatenate([a[None].astype(b.dtype), b]), first, entries
  )
