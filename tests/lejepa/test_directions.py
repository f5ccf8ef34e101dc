import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jlejepa
from jlejepa.exact import sigreg_exact

SAMPLERS = [
  jlejepa.random_directions,
  jlejepa.orthogonal_directions,
  jlejepa.sobol_directions,
]
each_sampler = pytest.mark.parametrize(
  "sampler", SAMPLERS, ids=lambda s: s.__name__
)


@each_sampler
@pytest.mark.parametrize("dim, num_slices", [(1, 3), (5, 3), (7, 40), (64, 64)])
def test_columns_are_unit_vectors(sampler, dim, num_slices):
  a = sampler(jax.random.key(0), dim, num_slices)
  assert a.shape == (dim, num_slices)
  assert a.dtype == jnp.float32
  np.testing.assert_allclose(np.linalg.norm(a, axis=0), 1, atol=1e-6)


@each_sampler
def test_each_column_is_uniform_on_the_sphere(sampler):
  # On the sphere of D = 3 a coordinate is uniform on [-1, 1] (Archimedes), so
  # its mean is 0, its variance 1/3, its fourth moment 1/5; two coordinates are
  # uncorrelated. Columns 0 and 3 show a first and a later block.
  keys = jax.random.split(jax.random.key(1), 4000)
  a = jax.jit(jax.vmap(lambda key: sampler(key, 3, 4)))(keys)
  for column in (0, 3):
    x = np.asarray(a[..., column], np.float64)
    np.testing.assert_allclose(x.mean(0), 0, atol=0.04)
    np.testing.assert_allclose(x.T @ x / len(x), np.eye(3) / 3, atol=0.03)
    np.testing.assert_allclose((x**4).mean(0), 0.2, atol=0.02)


@each_sampler
def test_a_key_fixes_the_directions_and_another_changes_them(sampler):
  one = sampler(jax.random.key(0), 6, 16)
  again = jax.jit(sampler, static_argnums=(1, 2))(jax.random.key(0), 6, 16)
  other = sampler(jax.random.key(1), 6, 16)
  np.testing.assert_allclose(one, again, atol=1e-6)
  assert np.abs(one - other).max(axis=0).min() > 1e-3


def test_orthogonal_blocks_are_orthogonal():
  a = jlejepa.orthogonal_directions(jax.random.key(2), 8, 20)
  for block in (a[:, :8], a[:, 8:16], a[:, 16:]):
    np.testing.assert_allclose(
      block.T @ block, np.eye(block.shape[1]), atol=1e-5
    )


@pytest.mark.parametrize("sampler", SAMPLERS[1:], ids=lambda s: s.__name__)
def test_structured_directions_estimate_sigreg_better(sampler):
  # Against the limit of infinitely many slices; the same number of slices.
  x = jax.random.laplace(jax.random.key(3), (64, 4)) * jnp.arange(1.0, 5.0)
  limit = sigreg_exact(x)
  keys = jax.random.split(jax.random.key(4), 100)

  def error(sampler):
    estimate = lambda key: jlejepa.sigreg(
      x, key, num_slices=16, t_max=5.0, num_points=33, sampler=sampler
    )
    return jnp.sqrt(jnp.mean((jax.jit(jax.vmap(estimate))(keys) - limit) ** 2))

  assert error(sampler) < 0.85 * error(jlejepa.random_directions)


@each_sampler
@pytest.mark.parametrize("dim, num_slices", [(0, 4), (4, 0)])
def test_empty_sizes_are_refused(sampler, dim, num_slices):
  with pytest.raises(ValueError, match="at least 1"):
    sampler(jax.random.key(0), dim, num_slices)
