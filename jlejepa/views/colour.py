"""Changes of colour, with the definitions of PIL and torchvision.

Everything here takes and returns *planes*: a tuple of one array `[H, W]` per
channel, either one (grey) or three (red, green, blue), float32 in [0, 1]. A
last axis of three would keep XLA from vectorising: on CPU the jitter of planes
is five times faster. Planes are not rounded to bytes between two steps.
"""

import jax
import jax.numpy as jnp

Planes = tuple[jax.Array, ...]


def luma(planes: Planes) -> jax.Array:
  """Computes the grey value `[H, W]` of ITU-R BT.601."""
  if len(planes) == 1:
    return planes[0]
  red, green, blue = planes
  return 0.299 * red + 0.587 * green + 0.114 * blue


def grayscale(planes: Planes) -> Planes:
  """Replaces every channel by the grey value."""
  return (luma(planes),) * len(planes)


def adjust_brightness(planes: Planes, factor: jax.Array) -> Planes:
  """Multiplies by `factor` (at least 0) and clips to [0, 1]."""
  return tuple(jnp.clip(factor * x, 0.0, 1.0) for x in planes)


def adjust_contrast(planes: Planes, factor: jax.Array) -> Planes:
  """Scales the distance from the image's mean grey value, and clips."""
  mean = jnp.mean(luma(planes))
  return tuple(jnp.clip(mean + factor * (x - mean), 0.0, 1.0) for x in planes)


def adjust_saturation(planes: Planes, factor: jax.Array) -> Planes:
  """Scales the distance from the pixel's grey value, and clips."""
  if len(planes) == 1:
    return planes
  grey = luma(planes)
  return tuple(jnp.clip(grey + factor * (x - grey), 0.0, 1.0) for x in planes)


def adjust_hue(planes: Planes, shift: jax.Array) -> Planes:
  """Turns the hue of HSV by `shift` turns; value and saturation stay.

  With V the largest channel, C the range of the channels and h in sixths of a
  turn, a channel is V - C clip(min(k, 4 - k), 0, 1), k = (h + n) mod 6, with
  n = 5, 3, 1 for red, green, blue. Grey pixels (C = 0) do not change.
  """
  if len(planes) == 1:
    return planes
  red, green, blue = planes
  value = jnp.maximum(jnp.maximum(red, green), blue)
  chroma = value - jnp.minimum(jnp.minimum(red, green), blue)
  inverse = 1.0 / jnp.where(chroma > 0, chroma, 1.0)
  from_green = jnp.where(
    value == green, 2.0 + (blue - red) * inverse, 4.0 + (red - green) * inverse
  )
  hue = jnp.where(value == red, (green - blue) * inverse, from_green)
  hue += 6.0 * shift

  def channel(n):
    k = hue + n
    k -= 6.0 * jnp.floor(k / 6.0)
    return value - chroma * jnp.clip(jnp.minimum(k, 4.0 - k), 0.0, 1.0)

  return channel(5.0), channel(3.0), channel(1.0)


def solarise(planes: Planes, threshold: float) -> Planes:
  """Inverts what rounds to a byte at or above the threshold (0 to 256)."""
  limit = (threshold - 0.5) / 255.0
  return tuple(jnp.where(x >= limit, 1.0 - x, x) for x in planes)


def random_jitter(
  key: jax.Array,
  planes: Planes,
  *,
  brightness: float = 0.0,
  contrast: float = 0.0,
  saturation: float = 0.0,
  hue: float = 0.0,
) -> Planes:
  """Applies the four adjustments in random order, as torchvision does.

  Args:
    key: a typed key, consumed.
    planes: see the module.
    brightness: factors are uniform in [max(0, 1 - b), 1 + b]; 0 leaves the
      adjustment out.
    contrast: likewise.
    saturation: likewise.
    hue: shifts are uniform in [-hue, hue], at most 0.5 (half a turn).
  """
  adjustments = [
    (adjust, max(0.0, 1.0 - strength), 1.0 + strength)
    for adjust, strength in (
      (adjust_brightness, brightness),
      (adjust_contrast, contrast),
      (adjust_saturation, saturation),
    )
    if strength > 0
  ]
  if hue > 0:
    adjustments.append((adjust_hue, -hue, hue))
  if len(planes) == 1:
    colourless = (adjust_saturation, adjust_hue)
    adjustments = [a for a in adjustments if a[0] not in colourless]

  count = len(adjustments)
  u = jax.random.uniform(key, (2, count))
  branches = [
    lambda planes, adjust=adjust, amount=low + (high - low) * u[0, i]: adjust(
      planes, amount
    )
    for i, (adjust, low, high) in enumerate(adjustments)
  ]
  # Sorting uniforms gives a random order. Under vmap a switch computes every
  # branch. Without the barrier XLA sometimes fuses across slots and computes
  # the earlier ones several times over, which doubles the time on CPU.
  order = jnp.argsort(u[1])
  for slot in range(count):
    planes = jax.lax.switch(order[slot], branches, planes)
    planes = jax.lax.optimization_barrier(planes)
  return planes
