"""Gaussian action noise with a power spectrum of 1/f^beta along time."""

import jax
import jax.numpy as jnp
import numpy as np

from jplanet import gaussian
from jplanet.types import Array, Key


def _power(horizon: int, beta: float) -> np.ndarray:
  """Returns the power of each frequency of a DFT, `[H]`, with mean 1."""
  frequency = np.abs(np.fft.fftfreq(horizon))
  # f^-beta has no value at 0. The constant component gets the power of the
  # slowest oscillation, as in iCEM's own generator.
  power = np.maximum(frequency, 1 / horizon) ** -float(beta)
  return power / power.mean()


def colour_matrix(horizon: int, beta: float) -> np.ndarray:
  """Builds the filter that turns white noise into coloured noise.

  The filter multiplies the spectrum by `f^(-beta / 2)`. It is circulant, so
  every step of the horizon has the same distribution.

  Args:
    horizon: steps, `H`.
    beta: 0 for white noise, 2 for a random walk's spectrum.

  Returns:
    float32 `[H, H]`, rows of unit norm.
  """
  response = np.fft.ifft(np.sqrt(_power(horizon, beta))).real
  step = np.arange(horizon)
  return response[(step[:, None] - step) % horizon].astype(np.float32)


def coloured_noise(
  key: Key, horizon: int, action_dim: int, beta: float = 0.0
) -> Array:
  """Draws one sequence of coloured noise (iCEM, Pinneri 2020, section 3.1).

  A single matrix product rather than an FFT: horizons are short, and under
  `vmap` over candidates the products batch into one.

  Args:
    key: consumed.
    horizon: steps, `H`.
    action_dim: independent channels, `A`.
    beta: exponent of the spectrum `1 / f^beta`; static.

  Returns:
    `[H, A]`, standard normal at every entry, correlated along time.
  """
  white = gaussian.noise(key, (horizon, action_dim))
  if beta == 0:
    return white
  return jnp.matmul(
    colour_matrix(horizon, beta), white, precision=jax.lax.Precision.HIGHEST
  )
