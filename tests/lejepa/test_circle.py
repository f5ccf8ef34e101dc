"""Cosine and sine from products, against numpy in float64."""

import jax
import numpy as np
import pytest

from jlejepa.circle import cos_sin


@pytest.mark.parametrize(
  "size, error", [(1, 1e-7), (8, 1.5e-7), (5000, 1.5e-7)]
)
def test_values_are_those_of_numpy(size, error):
  x = np.linspace(-size, size, 20001, dtype=np.float32)
  cosine, sine = jax.jit(cos_sin)(x)
  assert cosine.dtype == sine.dtype == np.float32
  np.testing.assert_allclose(cosine, np.cos(x.astype(float)), atol=error)
  np.testing.assert_allclose(sine, np.sin(x.astype(float)), atol=error)


def test_zero_is_exact_and_the_scale_is_of_the_angle():
  assert cos_sin(np.float32(0)) == (1, 0)
  x = np.linspace(-5, 5, 101, dtype=np.float32)
  _, sine = cos_sin(x, 0.3)
  np.testing.assert_allclose(sine, np.sin(0.3 * x.astype(float)), atol=1.5e-7)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_stays_so(bad):
  assert all(np.isnan(part) for part in cos_sin(np.float32(bad)))
