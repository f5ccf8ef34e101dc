"""Work on many pictures, a few steps of time at once."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

from jplanet.types import Array, Params

# Values of a target that are in work at once on a CPU: 680 pictures of 64x64.
VALUES = 2**23
# Values below which computing again costs less than a loop.
FEW = 2**21


def mean_loss(
  function: Callable[[Params, Array, Array], Array],
  params: Params,
  inputs: Array,
  targets: Array,
) -> Array:
  """Averages a loss over `[B, T]` without holding all of its parts at once.

  Part by part along time, value and gradient are computed together, so that
  nothing is computed twice and what a gradient needs is held for one part only.
  Not along the batch, which may be sharded. On accelerators all is one part:
  memory is no concern there, and a large kernel is faster.

  Args:
    function: `(params, inputs [B, t, ...], targets [B, t, ...]) -> []`, the
      mean over its steps. It closes over nothing that has a gradient.
    params: its weights.
    inputs: `[B, T, ...]`.
    targets: `[B, T, ...]`, which get no gradient where there are several parts.

  Returns:
    The mean, `[]`. Reverse-mode differentiable once.
  """
  on_cpu = jax.default_backend() == "cpu"
  values, steps = VALUES if on_cpu else targets.size, targets.shape[1]
  fitting = max(values * steps // targets.size, 1)
  size = next(n for n in range(min(fitting, steps), 0, -1) if steps % n == 0)
  if size == steps:
    return function(params, inputs, targets)
  return _in_parts(function, size, params, inputs, targets)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _in_parts(function, size, params, inputs, targets):
  def one(i):
    return function(params, _part(inputs, i, size), _part(targets, i, size))

  return lax.map(one, jnp.arange(targets.shape[1] // size)).mean()


def _forward(function, size, params, inputs, targets):
  parts = targets.shape[1] // size

  def add(total, i):
    value_and_grads = jax.value_and_grad(function, (0, 1))
    value, (grads, dx) = value_and_grads(
      params, _part(inputs, i, size), _part(targets, i, size)
    )
    return jax.tree.map(jnp.add, total, (value, grads)), dx

  start = jax.tree.map(jnp.zeros_like, (jnp.zeros(()), params))
  total, dx = lax.scan(add, start, jnp.arange(parts))
  dx = jnp.moveaxis(dx, 0, 1).reshape(inputs.shape)
  value, *grads = jax.tree.map(lambda x: x / parts, (*total, dx))
  return value, grads


def _backward(function, size, grads, g):
  return *jax.tree.map(lambda x: g * x, grads), None


_in_parts.defvjp(_forward, _backward)


def computed_once(function: Callable[..., Array], *inputs: Array) -> Array:
  """Computes what has no gradient, once for all that use it.

  On a CPU XLA would join a cheap function with everything that follows it, and
  compute it anew for each, in that one's order of memory: a dither's random
  numbers four times over, pixel by pixel. A loop along time ends that. There is
  none for few values, nor on an accelerator.

  Args:
    function: of arrays with leading `[B, t]`, element by element.
    inputs: `[B, T, ...]`.

  Returns:
    `function(*inputs)`.
  """
  steps = inputs[0].shape[1]
  few = inputs[0].size <= FEW or steps == 1
  if jax.default_backend() != "cpu" or few:
    return function(*inputs)
  parts = next(n for n in range(2, steps + 1) if steps % n == 0)
  size = steps // parts
  made = jax.eval_shape(function, *inputs)

  def write(i, made):
    part = function(*(_part(x, i, size) for x in inputs))
    return lax.dynamic_update_slice_in_dim(made, part, i * size, axis=1)

  return lax.fori_loop(0, parts, write, jnp.zeros(made.shape, made.dtype))


def _part(x: Array, i: Array, size: int) -> Array:
  return lax.dynamic_slice_in_dim(x, i * size, size, axis=1)
