"""PlaNet's objective (Equations 3 and 7) with its scales and free nats."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jplanet import gaussian
from jplanet.gaussian import Gaussian
from jplanet.overshooting import overshooting_loss
from jplanet.types import Array, Key, State


class Overshoot(NamedTuple):
  """What latent overshooting needs; states and actions lead with `[B, T]`."""

  prior: Callable[[State, Array, Key], State]
  gaussian: Callable[[State], Gaussian]
  initial: State
  states: Any
  actions: Array
  key: Key


def make_objective(
  *,
  image_scale: float = 1.0,
  reward_scale: float = 10.0,
  kl: str = "planet",
  kl_scale: float = 1.0,
  kl_rep_scale: float = 0.2,
  free_nats: float = 3.0,
  global_prior_scale: float = 0.0,
  overshooting_scale: float = 0.0,
  overshooting_distance: int = 0,
  overshooting_free_nats: float = 0.0,
) -> Callable[..., tuple[Array, dict[str, Array]]]:
  """Makes the loss from its scales.

  Each term is summed over pixels or latent dimensions and averaged over batch
  and time. The KL is clipped *after* the sum over dimensions and *before* the
  mean, at every `(b, t)`.

  Args:
    image_scale: weight of the image's negative log-likelihood.
    reward_scale: weight of the reward's (10 in the official code).
    kl: "planet", `max(0, KL - free)`, gradients to both sides; or "balanced",
      `max(free, KL(sg q || p)) * kl_scale + max(free, KL(q || sg p)) *
      kl_rep_scale` (DreamerV3, Hafner et al. 2023).
    kl_scale: weight of the KL (of its prior side when balanced).
    kl_rep_scale: weight of the posterior side when balanced.
    free_nats: nats per step that cost nothing.
    global_prior_scale: weight of `KL(q || N(0, 1))`, without free nats.
    overshooting_scale: weight of latent overshooting.
    overshooting_distance: `D`; distances 2 to `D` are added. 0 switches off.
    overshooting_free_nats: free nats of each overshooting KL.

  Returns:
    A function of keyword arrays `[B, T]`, and of the mean `image_nll` `[]`,
    giving `(loss, metrics)`.

  Raises:
    ValueError: for an unknown `kl`, or a scale or a distance alone.
  """
  if kl not in ("planet", "balanced"):
    raise ValueError(f"unknown loss.kl {kl!r}: expected 'planet' or 'balanced'")
  if (overshooting_scale > 0) != (overshooting_distance > 0):
    raise ValueError(
      "loss.overshooting_scale and loss.overshooting_distance belong together:"
      f" got {overshooting_scale} and {overshooting_distance}; set both or"
      " neither"
    )

  def objective(
    *,
    image_nll: Array,
    reward_nll: Array,
    posteriors: Gaussian,
    priors: Gaussian,
    overshoot: Overshoot,
  ) -> tuple[Array, dict[str, Array]]:
    divergence = gaussian.kl(*posteriors, *priors)
    if kl == "planet":
      kl_loss = kl_scale * gaussian.free_nats(divergence, free_nats)
    else:
      kl_loss = gaussian.balanced_kl(
        posteriors,
        priors,
        dyn_scale=kl_scale,
        rep_scale=kl_rep_scale,
        free=free_nats,
      )
    terms = {
      "image": image_scale * image_nll,
      "reward": reward_scale * reward_nll.mean(),
      "kl": kl_loss.mean(),
    }
    if global_prior_scale:
      standard = (
        jnp.zeros_like(posteriors.mean),
        jnp.ones_like(posteriors.std),
      )
      to_standard = gaussian.kl(*posteriors, *standard).mean()
      terms["global_prior"] = global_prior_scale * to_standard
    if overshooting_distance:
      terms["overshooting"] = overshooting_scale * _overshooting(
        overshoot, overshooting_distance, overshooting_free_nats
      )
    metrics = {f"loss_{name}": value for name, value in terms.items()}
    metrics |= {
      "kl": divergence.mean(),
      "prior_std": priors.std.mean(),
      "posterior_std": posteriors.std.mean(),
    }
    loss = sum(terms.values())
    return loss, metrics | {"loss": loss}

  return objective


def _overshooting(x: Overshoot, distance: int, free: float) -> Array:
  """Averages the overshooting KL over the batch."""
  return overshooting_loss(
    x.prior,
    x.gaussian,
    x.states,
    x.actions,
    jax.random.split(x.key, len(x.actions)),
    distance=distance,
    free_nats=free,
    initial=x.initial,
  ).mean()
