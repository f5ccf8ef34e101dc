"""What holds of every statistic, whatever the samples."""

import functools

import hypothesis
import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jlejepa
from jlejepa import multivariate, univariate

N, D = 8, 3
KEY = jax.random.key(0)
DIRECTIONS = jlejepa.random_directions(jax.random.key(1), D, 16)


def _slices(test):
  """SIGReg by a univariate test, on fixed directions."""
  return lambda z: jlejepa.sliced(test, z, DIRECTIONS)


UNIVARIATE = {name: getattr(univariate, name) for name in univariate.__all__}
INVARIANT = {  # to rotations, exactly
  **{name: getattr(multivariate, name) for name in multivariate.__all__},
  "sigreg_exact": jlejepa.sigreg_exact,
  "sigreg_exact, unbiased": functools.partial(
    jlejepa.sigreg_exact, unbiased=True
  ),
}
SLICED = {f"sliced {name}": _slices(test) for name, test in UNIVARIATE.items()}
WHITENED = {
  f"{name}, whitened": functools.partial(
    getattr(multivariate, name), standardize=True
  )
  for name in multivariate.__all__
}
STATISTICS = {
  **UNIVARIATE,
  **INVARIANT,
  **SLICED,
  **WHITENED,
  "sigreg_unbiased": lambda z: jlejepa.sigreg_unbiased(z, KEY, num_slices=16),
}
each = lambda statistics: pytest.mark.parametrize("name", statistics)

# The same examples at every run, so that what passes once passes again.
few = hypothesis.settings(
  max_examples=15, deadline=None, derandomize=True, database=None
)
samples = hnp.arrays(np.float32, (N, D), elements=st.floats(-4, 4, width=32))
scales = st.just(0.0) | st.floats(-12, 6).map(lambda power: 10.0**power)
seeds = st.integers(0, 2**16)


@functools.cache
def compiled(name):
  """The statistic and the gradient of its sum, compiled once."""

  def total(x):
    value = STATISTICS[name](x)
    return jnp.sum(value), value

  both = jax.jit(jax.value_and_grad(total, has_aux=True))

  def call(x):
    (_, value), gradient = both(x)
    return np.asarray(value), np.asarray(gradient)

  return call


def rotation(seed):
  """A Haar-distributed orthogonal matrix."""
  return np.asarray(
    jlejepa.orthogonal_directions(jax.random.key(seed), D, D), np.float32
  )


@pytest.mark.slow
@each(STATISTICS)
@few
@hypothesis.given(x=samples, scale=scales)
def test_value_and_gradient_are_finite_from_collapse_to_1e6(name, x, scale):
  # Samples of up to 4, so lengths of 7e6; and the same away from the origin.
  for moved in (np.float32(scale) * x, np.float32(scale) * (x + 3)):
    value, gradient = compiled(name)(moved)
    assert np.all(np.isfinite(value)) and np.all(np.isfinite(gradient))


@each(STATISTICS)
@few
@hypothesis.given(place=st.floats(-1e6, 1e6, width=32))
def test_a_point_mass_anywhere_has_a_finite_value_and_gradient(name, place):
  value, gradient = compiled(name)(np.full((N, D), place, np.float32))
  assert np.all(np.isfinite(value)) and np.all(np.isfinite(gradient))


@each({**UNIVARIATE, **INVARIANT, **SLICED})
@few
@hypothesis.given(x=samples, order=st.permutations(range(N)))
def test_the_order_of_the_samples_does_not_matter(name, x, order):
  value, gradient = compiled(name)(x)
  again, moved = compiled(name)(x[order])
  np.testing.assert_allclose(again, value, rtol=2e-5, atol=2e-5)
  if len(np.unique(x)) == x.size:  # equal samples share a gradient in any way
    size = np.abs(gradient).max()
    np.testing.assert_allclose(moved, gradient[order], atol=1e-3 * (1 + size))


@each(INVARIANT)
@few
@hypothesis.given(x=samples, seed=seeds)
def test_a_rotation_changes_nothing_and_turns_the_gradient(name, x, seed):
  turn = rotation(seed)
  value, gradient = compiled(name)(x)
  again, turned = compiled(name)(x @ turn)
  np.testing.assert_allclose(again, value, rtol=1e-4, atol=1e-4)
  size = np.abs(gradient).max()
  np.testing.assert_allclose(turned, gradient @ turn, atol=1e-3 * (1 + size))


@each(UNIVARIATE)
@few
@hypothesis.given(x=samples, seed=seeds)
def test_turning_samples_is_turning_directions_back(name, x, seed):
  # With directions uniform on the sphere: rotation invariance in distribution.
  turn = rotation(seed)
  sliced = functools.partial(_jitted_sliced, name)
  np.testing.assert_allclose(
    sliced(x @ turn, DIRECTIONS),
    sliced(x, turn @ DIRECTIONS),
    rtol=1e-3,
    atol=1e-3,
  )


@functools.partial(jax.jit, static_argnums=0)
def _jitted_sliced(name, x, directions):
  return jlejepa.sliced(UNIVARIATE[name], x, directions)


@functools.partial(jax.jit, static_argnums=2)
def _over_keys(x, keys, sampler):
  draw = lambda key: jlejepa.sigreg(x, key, num_slices=16, sampler=sampler)
  return jax.vmap(draw)(keys)


@pytest.mark.parametrize(
  "sampler",
  [
    jlejepa.random_directions,
    jlejepa.orthogonal_directions,
    jlejepa.sobol_directions,
  ],
)
@few
@hypothesis.given(x=samples, seed=seeds)
def test_sigreg_has_the_same_mean_of_rotated_embeddings(sampler, x, seed):
  keys = jax.random.split(jax.random.key(seed), (2, 256))
  plain = _over_keys(x, keys[0], sampler)
  turned = _over_keys(x @ rotation(seed), keys[1], sampler)
  error = np.sqrt((np.var(plain) + np.var(turned)) / 256)
  assert abs(np.mean(plain) - np.mean(turned)) < 5 * error + 1e-5
