"""Gaussian blur."""

import jax
import jax.numpy as jnp

# So narrow that every tap but the middle one underflows to exactly 0.
NO_BLUR = 1e-3


def blur_weights(size: int, sigma: jax.Array | float, kernel: int) -> jax.Array:
  """Builds the matrix `[size, size]` that blurs one axis.

  Taps exp(-d^2 / (2 sigma^2)) for |d| <= (kernel - 1) / 2, scaled to sum 1;
  the border is reflected without repeating its pixel, as in torchvision.

  Args:
    size: pixels, above `(kernel - 1) / 2`.
    sigma: in pixels. `NO_BLUR` gives the identity, bit for bit.
    kernel: number of taps, odd.
  """
  radius = (kernel - 1) // 2
  i = jnp.arange(size)[:, None]
  j = jnp.arange(size)[None, :]

  def tap(d):
    weight = jnp.exp(-0.5 * jnp.square(d / sigma))
    return jnp.where(jnp.abs(d) <= radius, weight, 0.0)

  # Pixel j is seen at j and at its two mirror images; a border pixel lies on
  # its mirror and is seen once.
  weights = tap(j - i)
  weights += jnp.where(j > 0, tap(-j - i), 0.0)
  weights += jnp.where(j < size - 1, tap(2 * (size - 1) - j - i), 0.0)
  return weights / jnp.sum(weights, axis=1, keepdims=True)


def gaussian_blur(
  planes: tuple[jax.Array, ...], sigma: jax.Array | float, kernel: int
) -> tuple[jax.Array, ...]:
  """Blurs planes `[S, S]` as `blur_weights` says.

  Two matrix products per plane, at the highest precision: fast on every
  device, however large the kernel.
  """
  weights = blur_weights(planes[0].shape[0], sigma, kernel)
  return tuple(
    jnp.einsum(
      "sh,hw,tw->st", weights, x, weights, precision=jax.lax.Precision.HIGHEST
    )
    for x in planes
  )
