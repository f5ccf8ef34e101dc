"""Whole sequences through a world model: filtering, and imagining ahead."""

import functools

import jax
import jax.numpy as jnp

from jplanet.loops import steps_per_turn
from jplanet.types import Array, Key, Params, State, WorldModel


def observe(
  model: WorldModel,
  params: Params,
  images: Array,
  actions: Array,
  key: Key,
  state: State | None = None,
) -> State:
  """Filters a sequence of observations (posterior steps, Section 3).

  Args:
    model: the world model.
    params: its parameters.
    images: uint8 `[T, S, S, 3]`.
    actions: `[T, A]`, where `actions[t]` led to `images[t]`.
    key: for dequantisation noise and samples; consumed.
    state: the state before the first step; the model's initial one by default.

  Returns:
    The posterior states, with a leading `T`.

  Raises:
    ValueError: the images and the actions are not equally many.
  """
  if len(images) != len(actions):
    raise ValueError(
      f"observe: got {len(images)} images and {len(actions)} actions, but each"
      " image needs the action that led to it"
    )

  def step(state, x):
    image, action, key = x
    encode_key, sample_key = jax.random.split(key)
    embed = model.encode(params, image, encode_key)
    state = model.observe(params, state, action, embed, sample_key)
    return state, state

  state = model.initial() if state is None else state
  keys = jax.random.split(key, len(actions))
  return jax.lax.scan(step, state, (images, actions, keys))[1]


def imagine(
  model: WorldModel,
  params: Params,
  state: State,
  actions: Array,
  key: Key | None = None,
) -> State:
  """Rolls the prior forward without observations (open loop).

  Args:
    model: the world model.
    params: its parameters.
    state: the state to start from.
    actions: `[H, A]`.
    key: for samples; None takes the mean of every step.

  Returns:
    The states after each action, with a leading `H`.
  """

  def step(state, x):
    action, key = x
    state = model.imagine(ready, state, action, key)
    return state, state

  ready = model.prepare(params)
  keys = None if key is None else jax.random.split(key, len(actions))
  unroll = steps_per_turn(len(actions))
  return jax.lax.scan(step, state, (actions, keys), unroll=unroll)[1]


def imagined_return(
  model: WorldModel,
  params: Params,
  state: State,
  actions: Array,
  key: Key | None = None,
) -> Array:
  """Sums the rewards predicted on the way that `imagine` takes.

  This is what planning maximises (Section 2). Arguments as for `imagine`.

  Returns:
    float32 `[]`.
  """
  ready = model.prepare(params)
  if jax.default_backend() != "cpu":
    # One large product for all steps: a GPU or TPU waits for small ones.
    states = imagine(model, params, state, actions, key)
    return jax.vmap(functools.partial(model.reward, ready))(states).sum()

  def step(carry, x):
    state, total = carry
    action, key = x
    state = model.imagine(ready, state, action, key)
    return (state, total + model.reward(ready, state)), None

  # A step's states are still in the cache, and are never kept.
  keys = None if key is None else jax.random.split(key, len(actions))
  first = (state, jnp.float32(0))
  return jax.lax.scan(step, first, (actions, keys))[0][1]
