import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from jlejepa.views import (
  Views,
  ViewSpec,
  check_spec,
  clean_view,
  contact_sheet,
  digits_specs,
  make_view,
  make_views,
  paper_specs,
  small_specs,
)

IMAGE = np.random.default_rng(0).integers(0, 256, (12, 12, 3), np.uint8)
WHOLE = dict(scale=(1.0, 1.0), ratio=(1.0, 1.0))
# Everything at once, on an image of 12 pixels.
BUSY = paper_specs(12, 8)[0]._replace(blur_kernel=5)
CROP = ViewSpec(8, scale=(0.1, 0.4), flip=0.5)


@functools.cache
def jitted(global_spec, local_spec, num_global, num_local):
  return jax.jit(
    functools.partial(
      make_views,
      global_spec=global_spec,
      local_spec=local_spec,
      num_global=num_global,
      num_local=num_local,
    )
  )


@functools.cache
def jitted_many(spec):
  one = functools.partial(make_view, spec=spec)
  return jax.jit(jax.vmap(one, in_axes=(0, None)))


def many(spec, image, count):
  """Makes `count` views of one image."""
  keys = jax.random.split(jax.random.key(0), count)
  return np.asarray(jitted_many(spec)(keys, image))


def count_of(primitive, program):
  """Counts the calls of a primitive, those inside other calls too."""
  found = 0
  for equation in program.eqns:
    found += equation.primitive.name == primitive
    for value in jax.tree.leaves(
      list(equation.params.values()), is_leaf=lambda x: hasattr(x, "eqns")
    ):
      if hasattr(value, "eqns"):
        found += count_of(primitive, value)
  return found


@pytest.mark.parametrize("image", [IMAGE, np.float32(IMAGE / 255)])
def test_a_view_without_augmentation_is_the_image(image):
  view = jax.jit(make_view, static_argnums=2)(
    jax.random.key(0), image, ViewSpec(12, **WHOLE)
  )
  assert view.dtype == jnp.float32
  # Bytes may be divided by 255 or multiplied by its reciprocal.
  np.testing.assert_allclose(view, np.float32(IMAGE) / 255, rtol=2e-7)


def test_shapes_and_types():
  def shapes(channels, local_spec, num_local):
    make = functools.partial(
      make_views,
      global_spec=BUSY._replace(mean=(0.5,), std=(0.2,)),
      local_spec=local_spec,
      num_global=2,
      num_local=num_local,
    )
    image = jnp.zeros((12, 12, channels), jnp.uint8)
    views = jax.eval_shape(make, jax.random.key(0), image)
    assert views.global_.dtype == views.local.dtype == jnp.float32
    return views.global_.shape, views.local.shape

  assert shapes(3, CROP, 3) == ((2, 12, 12, 3), (3, 8, 8, 3))
  assert shapes(3, CROP, 0) == ((2, 12, 12, 3), (0, 8, 8, 3))
  assert shapes(1, None, 0) == ((2, 12, 12, 1), (0, 12, 12, 1))


@pytest.mark.slow
def test_same_key_same_bits_and_every_view_its_own():
  make = jitted(BUSY, CROP, 2, 3)
  first = make(jax.random.key(0), IMAGE)
  again = make(jax.random.key(0), IMAGE)
  other = make(jax.random.key(1), IMAGE)
  assert make._cache_size() == 1
  for a, b, c in zip(first, again, other):
    np.testing.assert_array_equal(a, b)
    for one, another in itertools.combinations([*a, *c], 2):
      assert not np.array_equal(one, another)


def test_global_views_do_not_depend_on_the_local_ones():
  key = jax.random.key(4)
  with_local = jitted(CROP, CROP, 2, 3)(key, IMAGE)
  without = jitted(CROP, None, 2, 0)(key, IMAGE)
  np.testing.assert_allclose(with_local.global_, without.global_, atol=1e-5)


@pytest.mark.slow
def test_vmap_equals_loop():
  make = jitted(BUSY, CROP, 2, 3)
  keys = jax.random.split(jax.random.key(2), 4)
  images = np.stack([IMAGE, IMAGE[::-1], IMAGE[:, ::-1], 255 - IMAGE])
  batch = jax.jit(jax.vmap(make))(keys, images)
  for n, (key, image) in enumerate(zip(keys, images)):
    for together, alone in zip(batch, make(key, image)):
      # In another order of sums a pixel may fall on the other side of the
      # threshold of solarisation: rarely.
      differ = np.abs(together[n] - alone) > 1e-5
      assert differ.mean() < 0.01


def test_no_key_is_used_twice():
  make = functools.partial(
    make_views, global_spec=BUSY, local_spec=CROP, num_global=2,
    num_local=2,
  )  # fmt: skip
  with jax.debug_key_reuse(True):
    jax.jit(make).trace(jax.random.key(0), IMAGE)
    with pytest.raises(jax.errors.KeyReuseError):
      jax.jit(lambda key: (make(key, IMAGE), make(key, IMAGE))).trace(
        jax.random.key(0)
      )


def test_each_step_happens_as_often_as_it_should_and_by_itself():
  # One program tells the five coins of every view apart. Dark red left, less
  # dark red right, one row of white.
  image = np.zeros((8, 8, 3), np.uint8)
  image[:, :4, 0], image[:, 4:, 0], image[0] = 60, 90, 255
  wanted = dict(
    flip=0.3, jitter_prob=0.4, gray_prob=0.5, blur_prob=0.6, solarise_prob=0.7
  )
  spec = ViewSpec(
    8, **WHOLE, **wanted, brightness=0.2, blur_kernel=3, blur_sigma=(0.5, 0.5)
  )
  count = 2000
  x = 255 * many(spec, image, count)
  low, high = x[:, 6, 0, 0], x[:, 6, 7, 0]
  gray = x[:, 6, 0, 1] > 0
  red = np.maximum(low, high) / np.where(gray, 0.299, 1.0)
  found = dict(
    flip=low > high,
    jitter_prob=np.abs(red - 90) > 1e-3,
    gray_prob=gray,
    blur_prob=np.abs(x[:, 1, 0, 0] - low) > 1,
    solarise_prob=x[:, 0, 0, 0] < 128,
  )
  for name, probability in wanted.items():
    deviation = math.sqrt(probability * (1 - probability) / count)
    assert abs(found[name].mean() - probability) < 4 * deviation, name
  for one, other in itertools.combinations(found.values(), 2):
    assert abs(np.corrcoef(one, other)[0, 1]) < 4 / math.sqrt(count)


def test_a_probability_of_zero_costs_nothing():
  def draws(spec):
    program = jax.make_jaxpr(lambda key: make_view(key, IMAGE, spec))
    return count_of("random_bits", program(jax.random.key(0)).jaxpr)

  plain = ViewSpec(12, brightness=0.4, hue=0.1)
  assert draws(plain) == 2  # the box and the coins
  assert draws(BUSY) == 4  # amounts and order of the jitter; sigma


def test_steps_come_in_the_order_of_the_recipe():
  spec = ViewSpec(
    12, **WHOLE, flip=1.0, gray_prob=1.0, blur_prob=1.0, blur_sigma=(1.0, 1.0),
    blur_kernel=7, solarise_prob=1.0, solarise_threshold=120,
    mean=(0.1, 0.2, 0.3), std=(0.5, 0.6, 0.7),
  )  # fmt: skip
  found = many(spec, IMAGE, 1)[0]
  x = np.float64(IMAGE)[:, ::-1] @ [0.299, 0.587, 0.114] / 255
  taps = np.exp(-0.5 * np.arange(-3, 4) ** 2.0)
  for axis in (0, 1):
    x = ndimage.correlate1d(x, taps / taps.sum(), axis=axis, mode="mirror")
  bright = 255 * x >= 119.5
  x = np.where(bright, 1 - x, x)[..., None]
  expected = (x - np.array(spec.mean)) / np.array(spec.std)
  np.testing.assert_allclose(found, expected, atol=1e-5)
  assert 0.2 < bright.mean() < 0.8


def test_colour_goes_after_it_is_jittered():
  spec = ViewSpec(
    12, **WHOLE, brightness=0.5, saturation=0.9, hue=0.5, jitter_prob=1.0,
    gray_prob=1.0,
  )  # fmt: skip
  view = many(spec, IMAGE, 1)[0]
  np.testing.assert_array_equal(view[..., 0], view[..., 2])
  grey = np.float32(Image.fromarray(IMAGE).convert("L")) / 255
  assert np.abs(view[..., 0] - grey).max() > 0.05


def test_strong_jitter_stays_in_range_and_none_changes_no_bit():
  strong = ViewSpec(
    12, **WHOLE, brightness=5.0, contrast=5.0, saturation=5.0, hue=0.5,
    jitter_prob=0.5,
  )  # fmt: skip
  image = np.float32(IMAGE) / 255
  views = many(strong, image, 60)
  assert 12 < (views == image).all(axis=(1, 2, 3)).sum() < 48
  for other in (image, np.zeros_like(image), np.ones_like(image)):
    views = many(strong, other, 60)
    assert views.min() >= 0 and views.max() <= 1 + 1e-6


def test_one_mean_serves_three_channels():
  spec = ViewSpec(12, **WHOLE, mean=(0.25,), std=(0.5,))
  view = many(spec, IMAGE, 1)[0]
  np.testing.assert_allclose(view, (IMAGE / 255 - 0.25) / 0.5, atol=1e-6)


def test_a_clean_view_is_resized_centred_and_normalised():
  _, spec = small_specs(12, 8)
  image = np.concatenate([IMAGE, IMAGE], axis=1)[:, :20]
  found = jax.jit(clean_view, static_argnums=1)(image, spec)
  middle = Image.fromarray(image).resize((13, 8), Image.Resampling.BILINEAR)
  expected = np.float32(middle)[:, 2:10] / 255
  unit = found * np.float32(spec.std) + np.float32(spec.mean)
  assert np.abs(unit - expected).max() <= 1.01 / 255


def test_presets():
  wide, near = paper_specs()
  assert (wide.size, wide.scale, near.size, near.scale) == (
    224, (0.3, 1.0), 96, (0.05, 0.3),
  )  # fmt: skip
  for spec in (wide, near):
    strengths = (spec.brightness, spec.contrast, spec.saturation, spec.hue)
    assert strengths == (0.4, 0.4, 0.2, 0.1)
    assert (spec.flip, spec.jitter_prob, spec.gray_prob) == (0.5, 0.8, 0.2)
    assert (spec.blur_prob, spec.solarise_prob) == (0.5, 0.2)
    assert spec.solarise_threshold == 128
    check_spec(spec, (256, 300, 3))
  wide, near = small_specs()
  assert (wide.size, wide.scale, near.size, near.scale) == (
    32, (0.25, 1.0), 16, (0.15, 0.5),
  )  # fmt: skip
  for spec in (wide, near):
    strengths = (spec.brightness, spec.contrast, spec.saturation, spec.hue)
    assert strengths == (0.4, 0.4, 0.4, 0.1)
    assert spec.blur_prob == spec.solarise_prob == 0
    check_spec(spec, (32, 32, 3))
  for spec in digits_specs():
    assert spec.flip == spec.jitter_prob == 0
    check_spec(spec, (8, 8, 1))


def test_the_digits_preset_normalises_digits():
  from sklearn.datasets import load_digits

  images = load_digits().images / 16
  wide, _ = digits_specs()
  np.testing.assert_allclose(wide.mean, images.mean(), atol=1e-4)
  np.testing.assert_allclose(wide.std, images.std(), atol=1e-4)


@pytest.mark.parametrize(
  "change, message",
  [
    (dict(size=13), "size 13 asks for more pixels than the images have"),
    (dict(size=3), "size must be a whole number from 4, got 3"),
    (dict(size=8.0), "size must be a whole number"),
    (dict(size=True), "size must be a whole number"),
    (dict(scale=(0.0, 1.0)), "scale must be"),
    (dict(scale=(0.5, 1.5)), "scale must be"),
    (dict(scale=(0.5, 0.3)), "scale must be"),
    (dict(scale=0.3), "scale must be"),
    (dict(scale=(0.3, math.nan)), "scale must be"),
    (dict(scale=(0.001, 1.0)), "less than a pixel"),
    (dict(ratio=(0.0, 1.0)), "ratio must be"),
    (dict(flip=1.5), "flip must be from 0 to 1, got 1.5"),
    (dict(jitter_prob=-0.1), "jitter_prob must be from 0 to 1"),
    (dict(gray_prob="yes"), "gray_prob must be from 0 to 1"),
    (dict(brightness=-1.0), "brightness must be at least 0, got -1.0"),
    (dict(contrast=math.inf), "contrast must be at least 0"),
    (dict(hue=0.6), "hue must be from 0 to 0.5"),
    (dict(blur_sigma=(0.0, 1.0)), "blur_sigma must be"),
    (dict(blur_kernel=4), "blur_kernel must be an odd number"),
    (dict(blur_kernel=25), "blur_kernel must be below 24"),
    (dict(solarise_threshold=300), "solarise_threshold must be from 0 to 256"),
    (dict(mean=(0.5, 0.5)), "mean must be a tuple of 1 or 3"),
    (dict(mean=0.5), "mean must be a tuple of 1 or 3"),
    (dict(std=(0.2, 0.0, 0.2)), "std must be above 0"),
    (dict(upsample=1), "upsample must be True or False"),
  ],
)
def test_a_specification_without_sense_is_refused(change, message):
  spec = BUSY._replace(**change)
  with pytest.raises(ValueError, match=message) as error:
    make_views(jax.random.key(0), IMAGE, BUSY, spec, num_global=1, num_local=1)
  assert str(error.value).startswith("local view: ")
  assert "\n" not in str(error.value)


@pytest.mark.parametrize(
  "image, message",
  [
    (IMAGE[..., 0], "images must be .H, W, C., C = 1 or 3, got .12, 12."),
    (IMAGE[..., :2], "images must be .H, W, C."),
    (IMAGE[:3], "4 pixels a side or more, got 3 x 12"),
    (IMAGE[..., :1], "mean has 3 numbers, but the images have 1 channel"),
    (np.int32(IMAGE), "must be uint8 .0 to 255. or floating"),
  ],
)
def test_an_image_of_another_kind_is_refused(image, message):
  with pytest.raises(ValueError, match=message):
    make_views(jax.random.key(0), image, BUSY, num_global=1)
  with pytest.raises(ValueError, match=message):
    clean_view(image, BUSY)


def test_numbers_of_views_are_checked():
  key = jax.random.key(0)
  with pytest.raises(ValueError, match="at least 1 global"):
    make_views(key, IMAGE, BUSY, BUSY, num_global=0, num_local=1)
  with pytest.raises(ValueError, match="need a local_spec"):
    make_views(key, IMAGE, BUSY, num_global=1, num_local=1)


def test_a_view_may_stretch_an_image_if_told_to():
  spec = ViewSpec(30, **WHOLE, upsample=True)
  found = many(spec, IMAGE, 1)[0]
  stretched = Image.fromarray(IMAGE).resize((30, 30), Image.Resampling.BILINEAR)
  assert np.abs(255 * found - np.float32(stretched)).max() <= 1.01


def test_a_contact_sheet_shows_every_view_where_it_belongs():
  small = BUSY._replace(size=8)
  images = np.stack([IMAGE, 255 - IMAGE])
  unit = np.float32(images) / 255
  mean, std = np.float32(BUSY.mean), np.float32(BUSY.std)
  mirrored = (unit[:, None, :, ::-1] - mean) / std
  corner = (unit[:, None, :8, :8] - mean) / std
  views = Views(
    global_=np.concatenate([mirrored, mirrored[:, :, ::-1]], axis=1),
    local=corner,
  )
  sheet = contact_sheet(images, views, BUSY, small)
  assert sheet.dtype == np.uint8
  # 12 pixels are shown as 96, with 2 in between.
  assert sheet.shape == (2 * 98 + 2, 4 * 98 + 2, 3)

  def cell(row, column, size):
    top, left = 2 + 98 * row, 2 + 98 * column
    return sheet[top : top + 8 * size : 8, left : left + 8 * size : 8]

  for row, image in enumerate(images):
    np.testing.assert_array_equal(cell(row, 0, 12), image)
    np.testing.assert_array_equal(cell(row, 1, 12), image[:, ::-1])
    np.testing.assert_array_equal(cell(row, 2, 12), image[::-1, ::-1])
    np.testing.assert_array_equal(cell(row, 3, 8), image[:8, :8])
  assert (sheet[:2] == 160).all() and (sheet[70:98, -98:] == 160).all()

  without = Views(views.global_, np.zeros((2, 0, 8, 8, 3)))
  assert contact_sheet(images, without, BUSY).shape == (198, 3 * 98 + 2, 3)
  with pytest.raises(ValueError, match="got 1 images, 2 of global"):
    contact_sheet(images[:1], views, BUSY, small)


def test_a_contact_sheet_of_grey_images_is_grey():
  spec = ViewSpec(12, mean=(0.5,), std=(0.25,))
  views = Views(np.zeros((1, 1, 12, 12, 1)), np.zeros((1, 0, 12, 12, 1)))
  sheet = contact_sheet(IMAGE[None, ..., :1], views, spec)
  np.testing.assert_array_equal(sheet[2:98:8, 2:98:8, 2], IMAGE[..., 0])
  assert (sheet[2:98, 100:196] == 128).all()
