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


# What three adjustments measure distances from, made of grey values `[H, W]`.
ANCHORS = {
  "brightness": jnp.zeros_like,
  "contrast": lambda grey: jnp.full_like(grey, jnp.mean(grey)),
  "saturation": lambda grey: grey,
}


def adjust(planes: Planes, anchor: jax.Array, factor: jax.Array) -> Planes:
  """Multiplies distances from `anchor` by `factor`, clipped to [0, 1]."""
  scaled = (anchor + factor * (x - anchor) for x in planes)
  return tuple(jnp.clip(x, 0.0, 1.0) for x in scaled)


def adjust_brightness(planes: Planes, factor: jax.Array) -> Planes:
  """Multiplies by `factor` (at least 0) and clips to [0, 1]."""
  return adjust(planes, ANCHORS["brightness"](luma(planes)), factor)


def adjust_contrast(planes: Planes, factor: jax.Array) -> Planes:
  """Scales the distance from the image's mean grey value, and clips."""
  return adjust(planes, ANCHORS["contrast"](luma(planes)), factor)


def adjust_saturation(planes: Planes, factor: jax.Array) -> Planes:
  """Scales the distance from the pixel's grey value, and clips."""
  if len(planes) == 1:
    return planes
  return adjust(planes, ANCHORS["saturation"](luma(planes)), factor)


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
  strengths = {"brightness": brightness, "contrast": contrast}
  if len(planes) == 3:
    strengths["saturation"] = saturation
  anchors = [ANCHORS[name] for name, s in strengths.items() if s > 0]
  ranges = [(max(0.0, 1.0 - s), 1.0 + s) for s in strengths.values() if s > 0]
  if turns := hue > 0 and len(planes) == 3:
    ranges.append((-hue, hue))
  if not ranges:
    return planes

  count, (low, high) = len(ranges), jnp.array(ranges).T
  u = jax.random.uniform(key, (2, count))
  amounts = low + (high - low) * u[0]
  # Sorting uniforms gives a random order. Under vmap a slot computes every
  # adjustment, so those that differ in their anchor alone are one. Without the
  # barrier XLA sometimes fuses across slots and computes the earlier ones
  # several times over, which doubles the time on CPU.
  for kind in jnp.argsort(u[1]):
    amount, grey = amounts[kind], luma(planes)
    # Where the hue is turned, no anchor is looked at.
    choices = [anchor(grey) for anchor in anchors] + [grey] * turns
    scaled = adjust(planes, jax.lax.select_n(kind, *choices), amount)
    if turns:
      turned = adjust_hue(planes, amount)
      last = kind == count - 1
      scaled = tuple(jnp.where(last, t, s) for t, s in zip(turned, scaled))
    planes = jax.lax.optimization_barrier(scaled)
  return planes
