"""A probe with one hidden layer."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jlejepa.probes.checks import hold_out
from jlejepa.probes.linear import spread


def mlp_probe(
  train_x: np.ndarray,
  train_y: np.ndarray,
  test_x: np.ndarray,
  *,
  hidden: int = 256,
  epochs: int = 60,
  patience: int = 8,
  batch: int = 256,
  learning_rate: float = 1e-3,
  wd: float = 1e-2,
  seed: int = 0,
) -> np.ndarray:
  """Trains a ReLU layer and a linear one by AdamW, and stops early.

  On standardised features. The last tenth of each class is held out; the
  weights of the epoch with the least cross-entropy there are kept.

  Args:
    train_x: `[N, D]`.
    train_y: labels `[N]` in `0 .. C - 1`.
    test_x: `[M, D]`.
    hidden: width of the layer.
    epochs: at most so many.
    patience: stop after so many epochs without improvement.
    batch: samples a step; all of them if there are fewer.
    learning_rate: of AdamW, constant.
    wd: of AdamW.
    seed: of weights and order.

  Returns:
    Logits `[M, C]`.
  """
  mean, scale = train_x.mean(axis=0), spread(train_x)
  held = hold_out(train_y, 0.1)
  # With fewer than ten samples of each class all of them judge themselves.
  fit, judge = (~held, held) if held.any() else (slice(None), slice(None))
  x = jnp.asarray((train_x - mean) / scale)
  y = jnp.asarray(train_y)
  batch = min(batch, len(x[fit]))
  optimizer = _adamw(learning_rate, wd)
  init_key, order_key = jax.random.split(jax.random.key(seed))
  params = _init(init_key, x.shape[1], hidden, int(train_y.max()) + 1)
  state = (params, optimizer.init(params))
  best, least, since = params, np.inf, 0
  for key in jax.random.split(order_key, epochs):
    state, loss = _epoch(
      state, key, x[fit], y[fit], x[judge], y[judge], batch, learning_rate, wd
    )
    since += 1
    if float(loss) < least:
      best, least, since = state[0], float(loss), 0
    if since >= patience:
      break
  return np.asarray(_logits(best, jnp.asarray((test_x - mean) / scale)))


def _adamw(learning_rate, wd) -> optax.GradientTransformation:
  return optax.adamw(learning_rate, weight_decay=wd)


def _init(key: jax.Array, width: int, hidden: int, classes: int):
  first, second = jax.random.split(key)
  return {
    "w1": jax.random.normal(first, (width, hidden)) * (2 / width) ** 0.5,
    "b1": jnp.zeros(hidden),
    "w2": jax.random.normal(second, (hidden, classes)) / hidden**0.5,
    "b2": jnp.zeros(classes),
  }


def _logits(params, x: jax.Array) -> jax.Array:
  h = jax.nn.relu(x @ params["w1"] + params["b1"][None])
  return h @ params["w2"] + params["b2"][None]


def _loss(params, x: jax.Array, y: jax.Array) -> jax.Array:
  logits = _logits(params, x)
  return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()


# Here and not in `mlp_probe`, so that equal shapes compile once.
@partial(jax.jit, static_argnames="batch")
def _epoch(state, key, x, y, judge_x, judge_y, batch, learning_rate, wd):
  """Gives the state after one pass, and the held-out cross-entropy."""
  optimizer = _adamw(learning_rate, wd)

  def step(carry, indices):
    params, inner = carry
    slope = jax.grad(_loss)(params, x[indices], y[indices])
    updates, inner = optimizer.update(slope, inner, params)
    return (optax.apply_updates(params, updates), inner), None

  # What is left over differs from epoch to epoch.
  steps = len(x) // batch
  order = jax.random.permutation(key, len(x))[: steps * batch]
  state, _ = jax.lax.scan(step, state, order.reshape(steps, batch))
  return state, _loss(state[0], judge_x, judge_y)
