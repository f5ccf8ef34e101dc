import colorsys
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps
from scipy import ndimage, stats

from jlejepa.views import colour
from jlejepa.views.blur import NO_BLUR, gaussian_blur

BYTES = np.random.default_rng(0).integers(0, 256, (24, 20, 3), np.uint8)


def planes(image):
  image = jnp.asarray(image)
  if image.dtype == jnp.uint8:
    image = image.astype(jnp.float32) / 255.0
  return tuple(jnp.moveaxis(image, -1, 0))


def joined(result):
  return np.stack(result, axis=-1)


@pytest.mark.parametrize(
  "adjust, enhancer, tolerance",
  [
    (colour.adjust_brightness, ImageEnhance.Brightness, 1.01),
    # PIL rounds the mean and the grey value to bytes, then the result.
    (colour.adjust_contrast, ImageEnhance.Contrast, 1.6),
    (colour.adjust_saturation, ImageEnhance.Color, 1.6),
  ],
)
@pytest.mark.parametrize("factor", [0.0, 0.4, 1.0, 1.7])
def test_adjustments_are_those_of_pil(adjust, enhancer, tolerance, factor):
  found = joined(adjust(planes(BYTES), factor))
  expected = np.float32(enhancer(Image.fromarray(BYTES)).enhance(factor))
  assert np.abs(255 * found - expected).max() <= tolerance
  assert found.min() >= 0 and found.max() <= 1


def test_grey_is_that_of_pil():
  found = joined(colour.grayscale(planes(BYTES)))
  expected = np.float32(Image.fromarray(BYTES).convert("L"))
  assert np.abs(255 * found - expected[..., None]).max() <= 0.51
  assert (found[..., 0] == found[..., 1]).all()
  assert (found[..., 0] == found[..., 2]).all()


@pytest.mark.parametrize("shift", [-0.5, -0.1, 0.0, 0.07, 1 / 3, 0.5])
def test_hue_is_turned_as_colorsys_turns_it(shift):
  found = joined(colour.adjust_hue(planes(BYTES), shift))

  def turn(pixel):
    h, s, v = colorsys.rgb_to_hsv(*pixel)
    return colorsys.hsv_to_rgb((h + shift) % 1.0, s, v)

  expected = np.apply_along_axis(turn, -1, BYTES / 255)
  np.testing.assert_allclose(found, expected, atol=3e-6)


def test_hue_of_primaries_turns_a_third_into_the_next_one():
  primaries = np.float32([np.eye(3), 1 - np.eye(3)])
  found = joined(colour.adjust_hue(planes(primaries), 1 / 3))
  np.testing.assert_allclose(found, np.roll(primaries, 1, axis=-1), atol=1e-6)


def test_hue_of_grey_pixels_does_not_change():
  grey = np.repeat(np.linspace(0, 1, 64, dtype=np.float32), 3)
  grey = planes(grey.reshape(8, 8, 3))
  for before, after in zip(grey, colour.adjust_hue(grey, 0.3)):
    np.testing.assert_array_equal(before, after)


@pytest.mark.parametrize("threshold", [0, 1, 128, 255, 256])
def test_solarising_inverts_from_the_threshold_on(threshold):
  ramp = np.arange(256, dtype=np.uint8).reshape(16, 16, 1)
  found = joined(jax.jit(colour.solarise)(planes(ramp), threshold))
  solarised = ImageOps.solarize(Image.fromarray(ramp[..., 0]), threshold)
  expected = np.float32(solarised)[..., None]
  np.testing.assert_allclose(255 * found, expected, atol=1e-4)
  assert found[0, 0, 0] == (threshold == 0)


def test_one_channel_has_no_colour_to_change():
  one = planes(BYTES[..., :1])
  for change in (colour.adjust_saturation, colour.adjust_hue):
    np.testing.assert_array_equal(joined(change(one, 0.4)), joined(one))
  np.testing.assert_array_equal(joined(colour.grayscale(one)), joined(one))
  jittered = colour.random_jitter(
    jax.random.key(0), one, saturation=0.5, hue=0.5
  )
  np.testing.assert_array_equal(joined(jittered), joined(one))
  enhanced = ImageEnhance.Contrast(Image.fromarray(BYTES[..., 0])).enhance(0.5)
  found = 255 * joined(colour.adjust_contrast(one, 0.5))[..., 0]
  assert np.abs(found - np.float32(enhanced)).max() <= 1.01


def jitter(count, image, **strengths):
  """Returns `count` jittered versions of one image, `[count, H, W, C]`."""
  one = lambda key: jnp.stack(
    colour.random_jitter(key, planes(image), **strengths), axis=-1
  )
  keys = jax.random.split(jax.random.key(3), count)
  return np.asarray(jax.jit(jax.vmap(one))(keys))


# Far from 0 and 1, so that nothing is clipped; mean grey value 0.4.
PAIR = np.float32([[[0.5, 0.5, 0.5], [0.3, 0.3, 0.3]]])
COLOUR = np.float32([[[0.6, 0.4, 0.3]]])


@pytest.mark.parametrize(
  "name, strength, image, amount, low, high",
  [
    ("brightness", 0.4, PAIR, lambda x: x[:, 0, 0, 0] / 0.5, 0.6, 1.4),
    # The lower end is cut at 0.
    ("brightness", 1.5, PAIR / 4, lambda x: x[:, 0, 0, 0] / 0.125, 0.0, 2.5),
    (
      "contrast", 0.4, PAIR,
      lambda x: (x[:, 0, 0, 0] - x[:, 0, 1, 0]) / 0.2, 0.6, 1.4,
    ),
    (
      "saturation", 0.2, COLOUR,
      lambda x: (x[:, 0, 0, 0] - x[:, 0, 0, 2]) / 0.3, 0.8, 1.2,
    ),
    (
      "hue", 0.1, COLOUR,
      lambda x: (
        np.array([colorsys.rgb_to_hsv(*p)[0] for p in x[:, 0, 0]])
        - colorsys.rgb_to_hsv(*COLOUR[0, 0])[0] + 0.5
      ) % 1.0 - 0.5,
      -0.1, 0.1,
    ),
  ],
)  # fmt: skip
def test_amounts_are_uniform(name, strength, image, amount, low, high):
  found = amount(jitter(2000, image, **{name: strength}))
  assert found.min() > low - 1e-5 and found.max() < high + 1e-5
  uniform = stats.uniform(low, high - low)
  assert stats.kstest(found, uniform.cdf).pvalue > 1e-3


def test_the_four_adjustments_come_in_random_order(monkeypatch):
  # Each appends its digit to the first channel, and the first of them leaves
  # its amount in the second.
  def write(planes, digit, amount):
    return (
      10 * planes[0] + digit,
      planes[1] + jnp.where(digit == 1, amount, 0.0),
      planes[2],
    )

  for digit, name in enumerate(("brightness", "contrast", "saturation"), 1):
    anchor = lambda grey, digit=digit: jnp.full_like(grey, digit)
    monkeypatch.setitem(colour.ANCHORS, name, anchor)
  monkeypatch.setattr(colour, "adjust", write)
  turn = lambda planes, amount: write(planes, 4.0, amount)
  monkeypatch.setattr(colour, "adjust_hue", turn)
  names = (*colour.ANCHORS, "hue")
  black = np.zeros((1, 1, 3), np.float32)
  written = jitter(4800, black, **dict.fromkeys(names, 0.3))[:, 0, 0]
  orders, counts = np.unique(written[:, 0].astype(int), return_counts=True)
  assert set(orders) == {
    int("".join(p)) for p in itertools.permutations("1234")
  }
  assert stats.chisquare(counts).pvalue > 1e-3
  slots = [str(int(order)).index("1") for order in written[:, 0]]
  assert abs(np.corrcoef(slots, written[:, 1])[0, 1]) < 4 / math.sqrt(4800)


def test_amounts_do_not_depend_on_one_another():
  x = jitter(2000, PAIR, brightness=0.2, contrast=0.2)[:, 0, :, 0]
  brightness = x.mean(axis=1) / 0.4
  contrast = (x[:, 0] - x[:, 1]) / 0.2 / brightness
  assert abs(np.corrcoef(brightness, contrast)[0, 1]) < 0.1


@pytest.mark.parametrize("sigma", [0.1, 0.8, 2.0])
@pytest.mark.parametrize("size, kernel", [(24, 23), (12, 23), (9, 7), (5, 1)])
def test_blur_is_a_mirrored_correlation(size, kernel, sigma):
  image = planes(np.resize(BYTES, (size, size, 3)))
  offsets = np.arange(kernel) - kernel // 2
  taps = np.exp(-0.5 * (offsets / sigma) ** 2)
  taps /= taps.sum()
  found = jax.jit(gaussian_blur, static_argnums=2)(image, sigma, kernel)
  for before, after in zip(image, found):
    expected = np.float64(before)
    for axis in (0, 1):
      expected = ndimage.correlate1d(expected, taps, axis=axis, mode="mirror")
    np.testing.assert_allclose(after, expected, atol=1e-6)


def test_no_blur_is_the_identity_bit_for_bit():
  image = planes(np.resize(BYTES, (16, 16, 3)))
  for before, after in zip(image, gaussian_blur(image, NO_BLUR, 23)):
    np.testing.assert_array_equal(before, after)
