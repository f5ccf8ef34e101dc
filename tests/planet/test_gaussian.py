import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads
from scipy import integrate, stats

from jplanet import gaussian


def normals(seed, shape=(4, 3)):
  """Two random pairs (mean, std), as numpy arrays."""
  rng = np.random.default_rng(seed)
  mean = lambda: rng.normal(size=shape).astype(np.float32)
  std = lambda: rng.uniform(0.2, 2.0, size=shape).astype(np.float32)
  return (mean(), std()), (mean(), std())


@pytest.mark.parametrize(
  "mean_q, std_q, dims, expected",
  [
    # Only the means differ, by one standard deviation: 1/2 nat a dimension.
    (1.0, 1.0, 30, 15.0),
    # 30 * (ln 10 + 0.1^2 / 2 - 1/2) = 30 * (2.3025851 + 0.005 - 0.5)
    (0.0, 0.1, 30, 54.22755),
    # ln 2 + (0.25 + 1) / 2 - 1/2 = 0.6931472 + 0.125
    (1.0, 0.5, 1, 0.81814718),
  ],
)
def test_kl_to_standard_normal_known_answers(mean_q, std_q, dims, expected):
  one = np.ones(dims, np.float32)
  result = gaussian.kl(mean_q * one, std_q * one, 0 * one, one)
  np.testing.assert_allclose(result, expected, rtol=1e-6)


def test_kl_is_the_integral_of_q_log_q_over_p():
  q, p = stats.norm(0.3, 0.7), stats.norm(-0.5, 1.4)
  integrand = lambda x: q.pdf(x) * (q.logpdf(x) - p.logpdf(x))
  expected, _ = integrate.quad(integrand, -8, 8)
  args = [jnp.array([x]) for x in (0.3, 0.7, -0.5, 1.4)]
  np.testing.assert_allclose(gaussian.kl(*args), expected, rtol=1e-5)


def test_kl_is_zero_for_equal_and_positive_for_different_distributions():
  for seed in range(20):
    q, p = normals(seed)
    np.testing.assert_array_equal(gaussian.kl(*q, *q), np.zeros(4))
    assert (gaussian.kl(*q, *p) > 0).all()


def test_kl_is_not_symmetric():
  q, p = normals(0)
  assert not np.allclose(gaussian.kl(*q, *p), gaussian.kl(*p, *q), rtol=0.01)


def test_kl_sums_the_last_axis_and_keeps_the_others():
  q, p = normals(1, (5, 2, 3))
  result = gaussian.kl(*q, *p)
  assert result.shape == (5, 2)
  per_dim = [
    gaussian.kl(*(x[..., i : i + 1] for x in (*q, *p))) for i in range(3)
  ]
  np.testing.assert_allclose(result, sum(per_dim), rtol=1e-5)


def test_kl_under_vmap_equals_a_loop():
  q, p = normals(2)
  loop = np.stack([gaussian.kl(*row) for row in zip(*q, *p)])
  batched = jax.vmap(gaussian.kl)(*q, *p)
  np.testing.assert_allclose(batched, loop, rtol=1e-6)


def test_kl_gradients_match_finite_differences():
  q, p = normals(3)
  check_grads(gaussian.kl, (*q, *p), order=1, modes=["rev"], rtol=2e-2)


def test_bfloat16_inputs_give_float32_nats():
  q, p = [[x.astype(jnp.bfloat16) for x in d] for d in normals(4)]
  result = gaussian.kl(*q, *p)
  exact = gaussian.kl(*(jnp.float32(x) for x in (*q, *p)))
  assert result.dtype == jnp.float32
  np.testing.assert_array_equal(result, exact)
  assert gaussian.log_prob(*q, 1.0).dtype == jnp.float32


def test_log_prob_equals_scipy_elementwise():
  (x, std), (mean, _) = normals(5)
  expected = stats.norm.logpdf(x, mean, std)
  np.testing.assert_allclose(
    gaussian.log_prob(x, mean, std), expected, rtol=1e-5
  )
  expected = stats.norm.logpdf(x, mean)
  np.testing.assert_allclose(gaussian.log_prob(x, mean), expected, rtol=1e-5)


def test_log_prob_of_a_perfect_image_and_of_a_perfect_reward():
  # ln(2 pi) / 2 = 0.9189385, and 64 * 64 * 3 = 12288 times as much.
  image = jnp.zeros((64, 64, 3))
  np.testing.assert_allclose(
    gaussian.log_prob(image, image).sum(), -11291.9167, rtol=1e-6
  )
  np.testing.assert_allclose(gaussian.log_prob(1.0, 1.0), -0.9189385, rtol=1e-6)
  # Half the squared error, not the squared error: (3 - 1)^2 / 2 = 2.
  drop = gaussian.log_prob(1.0, 1.0) - gaussian.log_prob(3.0, 1.0)
  np.testing.assert_allclose(drop, 2.0, rtol=1e-6)


def test_sample_has_the_mean_and_the_spread_asked_for():
  mean, std = jnp.full(40_000, 2.0), jnp.full(40_000, 0.5)
  noise = gaussian.noise(jax.random.key(0), mean.shape)
  draws = gaussian.sample(gaussian.Gaussian(mean, std), noise)
  # Five standard errors: 0.5 / 200 and 0.5 / sqrt(80,000).
  assert abs(draws.mean() - 2.0) < 0.0125
  assert abs(draws.std() - 0.5) < 0.009
  assert stats.kstest(np.asarray(draws), stats.norm(2, 0.5).cdf).pvalue > 1e-4


def test_sample_without_a_key_is_the_mean():
  (mean, std), _ = normals(6)
  dist = gaussian.Gaussian(mean, std)
  drawn = gaussian.noise(jax.random.key(0), mean.shape)
  without = gaussian.sample(dist, gaussian.noise(None, mean.shape))
  np.testing.assert_array_equal(without, mean)
  without = gaussian.sample(dist, drawn, mean_only=True)
  np.testing.assert_array_equal(without, mean)
  assert (gaussian.sample(dist, drawn) != mean).all()


def test_sample_lets_gradients_into_mean_and_std():
  key, mean, std = jax.random.key(1), jnp.array([0.5]), jnp.array([2.0])
  noise = gaussian.noise(key, mean.shape)
  draw = lambda m, s: gaussian.sample(gaussian.Gaussian(m, s), noise)[0]
  by_mean, by_std = jax.grad(draw, (0, 1))(mean, std)
  np.testing.assert_allclose(by_mean, [1.0])
  np.testing.assert_allclose(by_std, noise, rtol=1e-6)


def test_free_nats_are_subtracted_and_cut_the_gradient_below_them():
  nats = jnp.array([1.0, 2.9, 3.5, 10.0])
  np.testing.assert_allclose(
    gaussian.free_nats(nats, 3.0), [0, 0, 0.5, 7], atol=1e-6
  )
  slope = jax.grad(lambda x: gaussian.free_nats(x, 3.0).sum())(nats)
  np.testing.assert_array_equal(slope, [0, 0, 1, 1])


def test_balanced_kl_value_by_hand():
  # KL(N(1, 1) || N(0, 1)) over 4 dimensions = 2 either way: above the free
  # nat, so 1.0 * 2 + 0.2 * 2; below 3 free nats, so 1.2 * 3.
  q, p = (jnp.ones(4), jnp.ones(4)), (jnp.zeros(4), jnp.ones(4))
  np.testing.assert_allclose(gaussian.balanced_kl(q, p), 2.4, rtol=1e-6)
  result = gaussian.balanced_kl(q, p, free=3.0)
  np.testing.assert_allclose(result, 3.6, rtol=1e-6)


def test_balanced_kl_trains_prior_and_posterior_with_their_own_scales():
  q, p = normals(7)
  plain = lambda q, p: gaussian.kl(*q, *p).sum()
  balanced = lambda q, p: gaussian.balanced_kl(
    q, p, free=0.0, dyn_scale=0.7, rep_scale=0.1
  ).sum()
  of_q, of_p = jax.grad(plain, (0, 1))(q, p)
  got_q, got_p = jax.grad(balanced, (0, 1))(q, p)
  for full, got, scale in ((of_q, got_q, 0.1), (of_p, got_p, 0.7)):
    for a, b in zip(full, got):
      np.testing.assert_allclose(scale * a, b, rtol=1e-5, atol=1e-7)


def test_balanced_kl_clips_every_step_by_itself():
  # Steps with 0.125 and 12.5 nats: 1.2 * 1 and 1.2 * 12.5. Clipping after the
  # mean would give 1.2 * 6.3125 and a gradient to the first step too.
  q = (jnp.array([[0.5], [5.0]]), jnp.ones((2, 1)))
  p = (jnp.zeros((2, 1)), jnp.ones((2, 1)))
  np.testing.assert_allclose(gaussian.balanced_kl(q, p), [1.2, 15.0], rtol=1e-6)
  slope = jax.grad(lambda p: gaussian.balanced_kl(q, p).mean())(p)[0]
  assert slope[0, 0] == 0 and slope[1, 0] != 0
