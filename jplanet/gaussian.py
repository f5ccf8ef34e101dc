"""Diagonal Gaussians: divergences, densities, samples.

The last axis of a mean and a standard deviation holds independent dimensions.
Everything is float32 inside, whatever the precision of the network that made
the numbers.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jlejepa.one_pass import one_pass
from jplanet.types import Array, Key


class Gaussian(NamedTuple):
  """A diagonal Gaussian: `mean` and `std`, both `[..., Z]`."""

  mean: Array
  std: Array


def kl(mean_q: Array, std_q: Array, mean_p: Array, std_p: Array) -> Array:
  """Computes KL(q || p) in nats, summed over the last axis.

  KL = sum_i log(p_i / q_i) + (q_i^2 + (m_i - n_i)^2) / (2 p_i^2) - 1/2, for
  q = N(m, diag(q^2)) and p = N(n, diag(p^2)).

  Args:
    mean_q: `[..., Z]`.
    std_q: `[..., Z]`, positive; so are all standard deviations here. The
      initial state of a model has std 0 and belongs in no divergence.
    mean_p: `[..., Z]`.
    std_p: `[..., Z]`.

  Returns:
    float32 `[...]`.
  """
  mean_q, std_q, mean_p, std_p = _float32(mean_q, std_q, mean_p, std_p)
  ratio = std_q / std_p
  distance = (mean_q - mean_p) / std_p
  nats = 0.5 * (jnp.square(ratio) + jnp.square(distance) - 1) - jnp.log(ratio)
  return nats.sum(-1)


def free_nats(nats_kl: Array, nats: float) -> Array:
  """Returns `max(0, KL - nats)`, elementwise: no gradient below the threshold.

  Apply it to a KL already summed over the latent dimensions and not yet
  averaged over batch and time (paper, appendix A: 3 free nats).
  """
  return jnp.maximum(0.0, nats_kl - nats)


def balanced_kl(
  q: Gaussian,
  p: Gaussian,
  *,
  free: float = 1.0,
  dyn_scale: float = 1.0,
  rep_scale: float = 0.2,
) -> Array:
  """Weights the two directions of learning in KL(q || p) differently.

  dyn_scale * max(free, KL(sg(q) || p)) + rep_scale * max(free, KL(q || sg(p)))

  The first term trains the prior towards the posterior, the second regularises
  the posterior (DreamerV3, equation 5; not in the PlaNet paper). Each term is
  clipped where its own leading indices are, before any average.

  Args:
    q: the posterior, of `[..., Z]`.
    p: the prior, of `[..., Z]`.
    free: nats below which a term gives no gradient.
    dyn_scale: weight of the term that trains the prior.
    rep_scale: weight of the term that trains the posterior.

  Returns:
    float32 `[...]`.
  """
  stop = jax.lax.stop_gradient
  dyn = jnp.maximum(free, kl(*stop(q), *p))
  rep = jnp.maximum(free, kl(*q, *stop(p)))
  return dyn_scale * dyn + rep_scale * rep


def log_prob(x: Array, mean: Array, std: Array | float = 1.0) -> Array:
  """Evaluates log N(x; mean, std^2) elementwise, in nats.

  Sum over the event afterwards: over the pixels of an image (a mean over
  pixels would make the KL 12,288 times too strong), over nothing for a reward.

  Args:
    x: `[...]`.
    mean: `[...]`, the shape of `x`.
    std: positive, a scalar or the shape of `x`.

  Returns:
    float32 `[...]`.
  """
  x, mean, std = _float32(x, mean, std)
  squared = jnp.square((x - mean) / std)
  return -0.5 * squared - jnp.log(std) - 0.5 * math.log(2 * math.pi)


def sample(
  dist: Gaussian, noise: Array | float, *, mean_only: bool = False
) -> Array:
  """Gives mean + std * noise, differentiable in both, or the mean alone.

  Args:
    dist: of `[..., Z]`.
    noise: standard normals `[..., Z]`, or 0 for the mean, as `noise` makes.
    mean_only: whether to give the mean whatever the noise.

  Returns:
    `[..., Z]`.
  """
  return dist.mean if mean_only else dist.mean + dist.std * noise


def noise(
  key: Key | None, shape: Sequence[int], dtype=jnp.float32
) -> Array | float:
  """Draws independent standard normals, as `jax.random.normal`, but faster.

  With the key `None` it gives 0, the noise of a mean.
  """
  return 0.0 if key is None else jax.random.normal(one_pass(key), shape, dtype)


def _float32(*arrays):
  return [jnp.asarray(x, jnp.float32) for x in arrays]
