"""The LeJEPA objective: views that agree, embeddings that are Gaussian."""

import jax
import jax.numpy as jnp

from jlejepa.directions import random_directions
from jlejepa.ecf import epps_pulley_null
from jlejepa.slicing import Sampler, Test, sigreg


def prediction_loss(
  projections: jax.Array,
  *,
  num_global: int,
  predictions: jax.Array | None = None,
  centre: jax.Array | None = None,
) -> jax.Array:
  """Computes the squared distance of every view to the mean global view.

  Paper Algorithm 2: the mean over `V`, `N` and `K` of `(mu_n - z_vn)^2`, with
  `mu_n` the mean of the first `num_global` views. Gradients flow through `mu`.

  Args:
    projections: `[V, N, K]`, any floating type; computed in float32.
    num_global: how many leading views are global, from 1 to `V`.
    predictions: `[V, N, K]`, what a predictor makes of the views, compared
      with `mu` in their place; None compares the views themselves.
    centre: `[N, K]`, to be taken for `mu`, such as the one that an averaged
      copy of the weights sees; None computes it here.

  Returns:
    A float32 scalar.

  Raises:
    ValueError: for a wrong shape or `num_global` outside `1 .. V`.
  """
  if projections.ndim != 3:
    raise ValueError(
      f"projections need shape [V, N, K], got {list(projections.shape)}"
    )
  if not 1 <= num_global <= projections.shape[0]:
    raise ValueError(
      f"num_global must be from 1 to the {projections.shape[0]} views, "
      f"got {num_global}"
    )
  for name, value, shape in (
    ("predictions", predictions, projections.shape),
    ("centre", centre, projections.shape[1:]),
  ):
    if value is not None and value.shape != shape:
      raise ValueError(
        f"{name} need shape {list(shape)}, got {list(value.shape)}"
      )
  if centre is None:
    centre = mean_global(projections, num_global)
  z = projections if predictions is None else predictions
  return jnp.mean((z.astype(jnp.float32) - centre) ** 2)


def mean_global(projections: jax.Array, num_global: int) -> jax.Array:
  """Returns the float32 mean `[N, K]` of the first views of `[V, N, K]`."""
  return jnp.mean(projections[:num_global].astype(jnp.float32), axis=0)


def scaled_lambda(lam: float, batch: int, reference: int) -> float:
  """Carries a trade-off tuned at one batch size over to another.

  SIGReg grows with `N`, the prediction term does not: the true balance is
  `lam N : 1 - lam`, and this returns the `lam` that keeps it.

  Args:
    lam: in `[0, 1]`, tuned at `reference`.
    batch: the global batch size, `N`.
    reference: the batch size that `lam` belongs to.

  Raises:
    ValueError: for `lam` outside `[0, 1]` or a size below 1.
  """
  if not 0 <= lam <= 1:
    raise ValueError(f"lam must be from 0 to 1, got {lam}")
  if batch < 1 or reference < 1:
    raise ValueError(
      f"batch sizes must be at least 1, got {batch} and {reference}"
    )
  weight = lam * reference / batch
  return weight / (weight + 1 - lam)


def spread(embeddings: jax.Array) -> jax.Array:
  """Computes the root mean square deviation of samples from their mean.

  1 for a standard Gaussian and 0 where all samples are at one point: what
  tells a collapse in plain numbers.

  Args:
    embeddings: `[..., N, D]`; leading axes are apart, and averaged.

  Returns:
    A float32 scalar.
  """
  x = embeddings.astype(jnp.float32)
  return jnp.sqrt(jnp.mean((x - jnp.mean(x, axis=-2, keepdims=True)) ** 2))


def effective_rank(embeddings: jax.Array) -> jax.Array:
  """Computes the participation ratio of the spectrum of the covariance.

  `(sum l)^2 / sum l^2` over eigenvalues `l`: `D` for isotropic embeddings, 1
  on a line, and 0 at a point.

  Args:
    embeddings: `[..., N, D]`; leading axes count as samples.

  Returns:
    A float32 scalar in `[0, D]`.
  """
  x = embeddings.reshape(-1, embeddings.shape[-1]).astype(jnp.float32)
  x = x - jnp.mean(x, axis=0)
  # Scaled, so that neither a square overflows nor a small spread reads as none.
  x = x / jnp.maximum(jnp.max(jnp.abs(x)), jnp.finfo(jnp.float32).tiny)
  covariance = jnp.matmul(x.T, x, precision=jax.lax.Precision.HIGHEST)
  trace, square = jnp.trace(covariance), jnp.sum(covariance**2)
  return trace**2 / jnp.maximum(square, jnp.finfo(jnp.float32).tiny)


def lejepa_loss(
  projections: jax.Array,
  key: jax.Array,
  *,
  num_global: int,
  lam: float | jax.Array = 0.05,
  num_slices: int = 1024,
  t_max: float = 3.0,
  num_points: int = 17,
  test: Test | None = None,
  sampler: Sampler = random_directions,
  predictions: jax.Array | None = None,
  centre: jax.Array | None = None,
) -> tuple[jax.Array, dict[str, jax.Array]]:
  """Computes `(1 - lam) * prediction + lam * SIGReg` (paper Algorithm 2).

  No teacher, no predictor, no stop-gradient. SIGReg is taken of each view
  apart, on the same directions, then averaged; it carries the factor `N`, so
  that the true balance is `lam * N : 1 - lam`, and a `lam` tuned at one batch
  size moves with another (`scaled_lambda`). Write the loss on the global batch:
  under jit with a sharded `projections` nothing divides by a device count.

  Args:
    projections: `[V, N, K]`, any floating type; computed in float32.
    key: a typed key for the directions; give a fresh one at each step.
    num_global: the first `num_global` views are global and make the centre.
    lam: in `[0, 1]`; may be traced.
    num_slices: as in `sigreg`, and so are the rest.
    t_max: as in `sigreg`.
    num_points: as in `sigreg`.
    test: as in `sigreg`.
    sampler: as in `sigreg`.
    predictions: as in `prediction_loss`.
    centre: as in `prediction_loss`.

  Returns:
    The float32 scalar loss, and float32 scalar metrics without gradients:
    `prediction`; `sigreg`; `sigreg_excess`, which is `sigreg` less its mean for
    Gaussian embeddings (absent with another `test`); `effective_rank`, from 1
    to `K`; `embedding_norm`, the mean length, about `sqrt(K)` for a Gaussian;
    `spread`, 1 for a Gaussian and 0 at collapse.

  Raises:
    ValueError: for a wrong shape, fewer than two samples, `num_global` outside
      `1 .. V` or `lam` outside `[0, 1]`.
  """
  if isinstance(lam, int | float) and not 0 <= lam <= 1:
    raise ValueError(f"lam must be from 0 to 1, got {lam}")
  prediction = prediction_loss(
    projections, num_global=num_global, predictions=predictions, centre=centre
  )
  regulariser = sigreg(
    projections,
    key,
    num_slices=num_slices,
    t_max=t_max,
    num_points=num_points,
    test=test,
    sampler=sampler,
  )
  loss = (1 - lam) * prediction + lam * regulariser
  lengths = jnp.linalg.norm(projections.astype(jnp.float32), axis=-1)
  metrics = {
    "prediction": prediction,
    "sigreg": regulariser,
    "effective_rank": effective_rank(projections),
    "embedding_norm": jnp.mean(lengths),
    "spread": spread(projections),
  }
  if test is None:
    null = epps_pulley_null(t_max=t_max, num_points=num_points)
    metrics["sigreg_excess"] = regulariser - null
  return loss, jax.lax.stop_gradient(metrics)
