"""A scan whose weights get their gradient from all steps at once.

JAX's gradient of a `lax.scan` adds up the gradient of the weights step by step,
in small products, and keeps whatever a step computes. Here a step keeps its
state alone. The way back in time follows the states; what the weights and the
inputs get then comes of one large product per layer. A GPU, which waits for
small products, has half of them left.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp

from jplanet.loops import steps_per_turn
from jplanet.types import Params, State

Step = Callable[[Params, State, jax.Array], State]


def scan_states(step: Step, weights: Params, first: State, inputs) -> State:
  """Runs `state = step(weights, state, input)` along time.

  Args:
    step: a pure function of one state.
    weights: what all steps share.
    first: the state before the first step.
    inputs: with a leading `T`.

  Returns:
    The states after each step, with a leading `T`.
  """
  frozen = jax.lax.stop_gradient((weights, first, inputs))

  def advance(state, x):
    state = step(frozen[0], state, x)
    return state, state

  length = len(jax.tree.leaves(inputs)[0])
  _, states = jax.lax.scan(advance, *frozen[1:], unroll=steps_per_turn(length))
  before = jax.tree.map(
    lambda one, many: jnp.concatenate([one[None], many[:-1]]), frozen[1], states
  )
  # Each step once more, side by side, for its gradient: nobody uses its value.
  again = jax.vmap(step, in_axes=(None, 0, 0))(weights, before, inputs)
  return _follow(step, frozen[0], frozen[2], before, states, first, again)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _follow(step, weights, inputs, before, states, first, again):
  """Returns `states`; a gradient comes to `first` and, whole, to `again`."""
  del step, weights, inputs, before, first, again
  return states


def _forward(step, weights, inputs, before, states, first, again):
  del step, first, again
  return states, (weights, inputs, before)


def _backward(step, saved, gradients):
  weights, inputs, before = saved

  def back(later, x):
    state, x, here = x
    whole = jax.tree.map(jnp.add, later, here)
    _, pull = jax.vjp(lambda state: step(weights, state, x), state)
    return pull(whole)[0], whole

  zeros = jax.tree.map(lambda g: jnp.zeros_like(g[0]), gradients)
  first, whole = jax.lax.scan(
    back,
    zeros,
    (before, inputs, gradients),
    reverse=True,
    unroll=steps_per_turn(len(jax.tree.leaves(inputs)[0])),
  )
  return None, None, None, None, first, whole


_follow.defvjp(_forward, _backward)
