"""A scan whose weights get their gradient from all steps at once.

JAX's gradient of a `lax.scan` adds up the gradient of the weights step by step,
in small products, and keeps whatever a step computes. Here a step keeps its
state alone. The way back in time follows the states; what the weights and the
inputs get then comes of one large product per layer. A GPU, which waits for
small products, has fewer of them (`python -m benchmarks.gpu_kernels`).
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

  Differentiable in reverse mode.

  Args:
    step: a pure function of one state, floating throughout; it closes over
      nothing that is differentiated.
    weights: what all steps share.
    first: the state before the first step.
    inputs: with a leading `T`.

  Returns:
    The states after each step, with a leading `T`.
  """
  before, states = _run(step, weights, first, inputs)
  # Each step once more, side by side, for its gradient: nobody uses its value.
  again = jax.vmap(step, in_axes=(None, 0, 0))(weights, before, inputs)
  return _follow(step, weights, inputs, before, states, first, again)


def _unroll(inputs) -> int:
  return steps_per_turn(len(jax.tree.leaves(inputs)[0]))


def _scan(step, weights, first, inputs):
  """Returns the states before and after each step."""

  def advance(state, x):
    state = step(weights, state, x)
    return state, state

  _, states = jax.lax.scan(advance, first, inputs, unroll=_unroll(inputs))
  before = jax.tree.map(
    lambda one, many: jnp.concatenate([one[None], many])[:-1], first, states
  )
  return before, states


# Without a gradient, but not by `stop_gradient`: that would stop a derivative
# of the gradient too.
_run = jax.custom_vjp(_scan, nondiff_argnums=(0,))
_run.defvjp(
  lambda step, *args: (_scan(step, *args), None),
  lambda step, saved, gradients: (None, None, None),
)


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

  zeros = jax.tree.map(lambda g: jnp.zeros(g.shape[1:], g.dtype), gradients)
  first, whole = jax.lax.scan(
    back,
    zeros,
    (before, inputs, gradients),
    reverse=True,
    unroll=_unroll(inputs),
  )
  return None, None, None, None, first, whole


_follow.defvjp(_forward, _backward)
