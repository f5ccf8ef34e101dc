"""How much of the simulator's state a world model's features tell (Fig. 11).

    python -m jplanet.diagnostics --workdir=runs/cheetah [--episodes=16]

Small heads on frozen features predict positions, velocities and whatever else
the simulator knows. They have an optimiser of their own and give the world
model no gradient, so they change nothing of what they measure.
`jplanet.diagnose` is the command; this is what it computes.
"""

from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jplanet.types import Array, Key, Params, WorldModel
from jplanet.unroll import imagine, observe


def init_heads(
  key: Key, feature_dim: int, sizes: Mapping[str, int], units: int = 100
) -> Params:
  """Makes the weights of one head per quantity: a hidden layer, then linear.

  Args:
    key: consumed.
    feature_dim: `F`.
    sizes: the number of components of each quantity.
    units: width of the hidden layer.

  Returns:
    By quantity, a dict of `hidden` `[F, units]`, `hidden_bias`, `output`
    `[units, n]` and `output_bias`.

  Raises:
    ValueError: there is no quantity, or a size is below 1.
  """
  if not sizes or min(feature_dim, units, *sizes.values()) < 1:
    raise ValueError(
      "heads need at least one quantity, and sizes of at least 1: got"
      f" feature_dim={feature_dim}, units={units}, sizes={dict(sizes)}"
    )
  kernel = jax.nn.initializers.lecun_normal()
  params = {}
  for name, head_key in zip(sizes, jax.random.split(key, len(sizes))):
    hidden_key, output_key = jax.random.split(head_key)
    params[name] = {
      "hidden": kernel(hidden_key, (feature_dim, units)),
      "hidden_bias": jnp.zeros(units),
      "output": kernel(output_key, (units, sizes[name])),
      "output_bias": jnp.zeros(sizes[name]),
    }
  return params


def predict(params: Params, features: Array) -> dict[str, Array]:
  """Predicts every quantity from features, to which no gradient flows.

  Args:
    params: as `init_heads` makes them.
    features: `[..., F]`.

  Returns:
    By quantity, `[..., n]`.
  """
  features = jax.lax.stop_gradient(features)

  def head(p):
    hidden = jax.nn.relu(features @ p["hidden"] + p["hidden_bias"])
    return hidden @ p["output"] + p["output_bias"]

  return {name: head(p) for name, p in params.items()}


def heads_loss(
  params: Params, features: Array, targets: Mapping[str, Array]
) -> tuple[Array, dict[str, Array]]:
  """Computes half the squared error, its mean per quantity, and their sum.

  Args:
    params: as `init_heads` makes them.
    features: `[..., F]`.
    targets: by quantity `[..., n]`, standardised so that none outweighs the
      others.

  Returns:
    The loss `[]`, and `<quantity>_loss` of each.

  Raises:
    ValueError: the quantities or their shapes are not those of the heads.
  """
  predicted = predict(params, features)
  shapes = {name: x.shape for name, x in predicted.items()}
  given = {name: jnp.shape(x) for name, x in targets.items()}
  if shapes != given:
    raise ValueError(
      f"targets must have the shapes that the heads predict, {shapes}, got"
      f" {given}"
    )
  metrics = {
    f"{name}_loss": 0.5 * jnp.square(x - targets[name]).mean()
    for name, x in predicted.items()
  }
  return sum(metrics.values()), metrics


def fit_heads(
  key: Key,
  features: Array,
  targets: Mapping[str, Array],
  *,
  units: int = 100,
  updates: int = 1000,
  batch: int = 256,
  learning_rate: float = 1e-3,
) -> tuple[Params, Array]:
  """Fits heads with Adam on batches drawn with replacement.

  Args:
    key: consumed.
    features: `[N, F]`, standardised.
    targets: by quantity `[N, n]`, standardised.
    units: width of the hidden layers.
    updates: of the weights.
    batch: entries per update.
    learning_rate: Adam's; it falls linearly to 0, which averages the noise of
      the last batches out.

  Returns:
    The weights and the losses `[updates]`.
  """
  init_key, batch_key = jax.random.split(key)
  sizes = {name: x.shape[-1] for name, x in targets.items()}
  params = init_heads(init_key, features.shape[-1], sizes, units)
  schedule = optax.linear_schedule(learning_rate, 0.0, updates)
  optimizer = optax.adam(schedule)

  def update(carry, key):
    params, opt_state = carry
    rows = jax.random.randint(key, (batch,), 0, len(features))
    chosen = {name: x[rows] for name, x in targets.items()}
    (loss, _), grads = jax.value_and_grad(heads_loss, has_aux=True)(
      params, features[rows], chosen
    )
    changes, opt_state = optimizer.update(grads, opt_state, params)
    return (optax.apply_updates(params, changes), opt_state), loss

  carry = (params, optimizer.init(params))
  keys = jax.random.split(batch_key, updates)
  (params, _), losses = jax.lax.scan(update, carry, keys)
  return params, losses


def rollout_features(
  model: WorldModel,
  params: Params,
  images: Array,
  actions: Array,
  key: Key,
  *,
  horizons: Sequence[int],
  context: int = 5,
) -> Array:
  """Computes a sequence's features, filtered and predicted open loop.

  Open loop means the prior with the recorded actions and without images. Its
  steps take means: a sample's own noise would count as an error.

  Args:
    model: the world model.
    params: its parameters.
    images: uint8 `[T, S, S, 3]`.
    actions: `[T, A]`, where `actions[t]` led to `images[t]`.
    key: for filtering; consumed.
    horizons: numbers of decisions `h` after the last image seen, 1 or more.
    context: images that the last row filters, 1 to `T - 1`.

  Returns:
    `[2 + len(horizons), T, F]`. Row 0 is filtered. Row `j` says what entry `t`
    would be after image `t - h`, with `h = horizons[j - 1]`, and means nothing
    where `t < h`. The last row sees `context` images and then none.

  Raises:
    ValueError: a horizon or the context is out of range.
  """
  if min(horizons, default=1) < 1 or not 1 <= context < len(actions):
    raise ValueError(
      f"horizons must be 1 or more and context from 1 to {len(actions) - 1},"
      f" got {list(horizons)} and {context}"
    )
  states = observe(model, params, images, actions, key)
  filtered = jax.vmap(model.features)(states)
  longest = max(horizons, default=1)
  padded = jnp.pad(actions, ((0, longest), (0, 0)))

  def ahead(state, t):
    coming = jax.lax.dynamic_slice_in_dim(padded, t + 1, longest)
    dreamt = imagine(model, params, state, coming)
    return jax.vmap(model.features)(dreamt)

  dreamt = jax.vmap(ahead)(states, jnp.arange(len(actions)))
  last = jax.tree.map(lambda x: x[context - 1], states)
  dream = imagine(model, params, last, actions[context:])
  return jnp.stack(
    [
      filtered,
      *(jnp.roll(dreamt[:, h - 1], h, axis=0) for h in horizons),
      jnp.concatenate([filtered[:context], jax.vmap(model.features)(dream)]),
    ]
  )


def standardize(x: np.ndarray, reference: np.ndarray) -> np.ndarray:
  """Returns `x` `[..., n]` less the mean of `reference` `[N, n]`, over its std.

  A component that is constant in `reference` is left in its own units.
  """
  std = reference.std(0)
  std = np.where(std > 1e-6, std, 1)
  return ((x - reference.mean(0)) / std).astype(np.float32)


def r_squared(true: np.ndarray, predicted: np.ndarray) -> np.ndarray:
  """Computes the share of the variance that predictions explain.

  Args:
    true: `[N, n]`.
    predicted: `[N, n]`.

  Returns:
    `[n]`: 1 is perfect, 0 as good as the mean of `true`, below 0 is worse; nan
    where `true` is constant.
  """
  true = np.asarray(true, np.float64)
  error = np.square(predicted - true).mean(0)
  variance = true.var(0)
  known = variance > 1e-12
  return np.where(known, 1 - error / np.where(known, variance, 1), np.nan)


if __name__ == "__main__":
  from jplanet.diagnose import run

  run()
