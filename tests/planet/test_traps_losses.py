"""Traps 2, 3 and 16 of `test_traps.py`: the terms of the loss."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jplanet.cells import GaussianHead
from jplanet.gaussian import Gaussian
from jplanet.losses import make_objective


def objective(posteriors, priors, **options):
  """The loss terms of given distributions, with no image and no reward."""
  zeros = jnp.zeros(posteriors.mean.shape[:2])
  return make_objective(**options)(
    image_nll=jnp.zeros(()),
    reward_nll=zeros,
    posteriors=posteriors,
    priors=priors,
    overshoot=None,
  )[1]


def test_trap_2_free_nats_come_after_the_sum_and_before_the_mean():
  # 30 dimensions, std 1: KL = 30 * m^2 / 2, so 0 and 6 nats in the two steps.
  # Right: mean(max(0, 0 - 3), max(0, 6 - 3)) = 1.5. After the mean it would be
  # 0, per dimension 0 (0.2 nats each).
  mean = jnp.zeros((1, 2, 30)).at[0, 1].set(math.sqrt(6 / 15))
  ones = jnp.ones_like(mean)
  metrics = objective(Gaussian(mean, ones), Gaussian(0 * mean, ones))
  np.testing.assert_allclose(metrics["kl"], 3.0, rtol=1e-5)
  np.testing.assert_allclose(metrics["loss_kl"], 1.5, rtol=1e-5)


def test_trap_2_and_3_both_sides_of_the_plain_kl_learn():
  def loss(q, p):
    ones = jnp.ones((1, 1, 4))
    return objective(Gaussian(q, ones), Gaussian(p, ones), free_nats=1.0)[
      "loss"
    ]

  of_q, of_p = jax.grad(loss, (0, 1))(
    jnp.full((1, 1, 4), 3.0), jnp.zeros((1, 1, 4))
  )
  np.testing.assert_allclose(of_q, np.full((1, 1, 4), 3.0))
  np.testing.assert_allclose(of_p, np.full((1, 1, 4), -3.0))


def test_trap_3_std_is_softplus_plus_a_tenth():
  head = GaussianHead(1)
  params = head.init(jax.random.key(0), jnp.zeros(1))
  params = jax.tree.map(jnp.ones_like, params)
  # Input x gives softplus(x + 1) + 0.1: linear above, 0.1 below; an
  # exponential would give 22026 at 10, a maximum no slope below.
  for x, expected in ((9.0, 10.1000454), (-1.0, 0.7931472), (-21.0, 0.1)):
    std = head.apply(params, jnp.array([x])).std
    np.testing.assert_allclose(std, [expected], rtol=1e-6)


@pytest.mark.parametrize(
  "options, words",
  [
    (dict(overshooting_distance=10), "belong together"),
    (dict(overshooting_scale=1.0), "belong together"),
    (dict(kl="planets"), "'planet' or 'balanced'"),
  ],
)
def test_trap_16_settings_that_would_do_nothing_are_errors(options, words):
  with pytest.raises(ValueError, match=words):
    make_objective(**options)


def test_trap_16_the_global_prior_is_the_kl_to_a_standard_normal():
  # The official code keeps the setting and crashes. 4 * 1 / 2 = 2 nats.
  ones = jnp.ones((1, 1, 4))
  metrics = objective(
    Gaussian(ones, ones), Gaussian(ones, ones), global_prior_scale=0.1
  )
  np.testing.assert_allclose(metrics["loss_global_prior"], 0.2, rtol=1e-6)
  assert metrics["loss_kl"] == 0
