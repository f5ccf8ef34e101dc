import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from scipy import stats

from jlejepa.views.geometry import (
  Box,
  crop_and_resize,
  random_box,
  resize_and_centre_crop,
)

COUNT = 4000
crop = jax.jit(crop_and_resize, static_argnames="size")
evaluate = jax.jit(resize_and_centre_crop, static_argnames=("size", "resize"))


def boxes(height, width, scale, ratio):
  """Draws `[COUNT, 4]`: top, left, height, width."""
  draw = functools.partial(random_box, scale=scale, ratio=ratio)
  drawn = jax.jit(jax.vmap(lambda key: draw(key, height, width)))(
    jax.random.split(jax.random.key(0), COUNT)
  )
  assert all(field.dtype == jnp.int32 for field in drawn)
  return np.stack(drawn, axis=1)


def boxes_by_rejection(height, width, scale, ratio):
  """torchvision's rule, box by box, with numpy's random numbers."""
  rng = np.random.default_rng(1)

  def one():
    for _ in range(10):
      area = height * width * rng.uniform(*scale)
      aspect = math.exp(rng.uniform(math.log(ratio[0]), math.log(ratio[1])))
      w = round(math.sqrt(area * aspect))
      h = round(math.sqrt(area / aspect))
      if 0 < w <= width and 0 < h <= height:
        top, left = rng.integers(height - h + 1), rng.integers(width - w + 1)
        return top, left, h, w
    w, h = width, height
    if width / height < ratio[0]:
      h = round(width / ratio[0])
    elif width / height > ratio[1]:
      w = round(height * ratio[1])
    return (height - h) // 2, (width - w) // 2, h, w

  return np.array([one() for _ in range(COUNT)])


@pytest.mark.parametrize(
  "height, width, scale, ratio",
  [
    (32, 32, (0.25, 1.0), (3 / 4, 4 / 3)),
    (50, 31, (0.05, 0.3), (3 / 4, 4 / 3)),
    # Few candidates fit here, so that many boxes are the fall-back.
    (20, 60, (0.6, 1.0), (0.5, 2.0)),
  ],
)
def test_boxes_are_distributed_as_torchvision_draws_them(
  height, width, scale, ratio
):
  ours = boxes(height, width, scale, ratio)
  theirs = boxes_by_rejection(height, width, scale, ratio)
  top, left, h, w = ours.T
  assert top.min() >= 0 and left.min() >= 0 and min(h.min(), w.min()) >= 1
  assert (top + h).max() <= height and (left + w).max() <= width

  def features(b):
    return [*b.T, b[:, 2] * b[:, 3], b[:, 3] / b[:, 2], b[:, 0] + b[:, 2]]

  for mine, other in zip(features(ours), features(theirs)):
    assert stats.ks_2samp(mine, other, method="asymp").pvalue > 1e-3
  # Whole pixels: half a pixel of each side is what rounding can do.
  assert ((h - 0.5) * (w - 0.5)).max() <= scale[1] * height * width


def test_area_is_uniform_and_aspect_log_uniform_on_a_large_image():
  # A small area always fits, so that nothing is rejected.
  _, _, h, w = boxes(4000, 4000, (0.1, 0.4), (3 / 4, 4 / 3)).T
  area = (h * w / 4000**2 - 0.1) / 0.3
  aspect = (np.log(w / h) - np.log(3 / 4)) / np.log(16 / 9)
  for x in (area, aspect):
    assert stats.kstest(x, "uniform").pvalue > 1e-3


@pytest.mark.parametrize(
  "height, width, ratio, expected",
  [
    (40, 24, (3.0, 4.0), (16, 0, 8, 24)),  # too tall: 24 wide, 24 / 3 high
    (24, 40, (0.25, 0.5), (0, 14, 24, 12)),  # too wide: 24 / 2 wide
    (40, 24, (0.5, 2.0), (0, 0, 40, 24)),  # in between: all of it
  ],
)
def test_falls_back_to_the_largest_centred_box(height, width, ratio, expected):
  drawn = boxes(height, width, (1.0, 1.0), ratio)
  counted = (drawn == np.array(expected)).all(axis=1).mean()
  # In the last case a candidate may round to fit: then it is nearly all.
  assert counted > (0.7 if expected[2:] == (height, width) else 0.999)
  assert (drawn[:, 2] * drawn[:, 3]).min() >= 0.95 * expected[2] * expected[3]


def picture(height, width):
  rng = np.random.default_rng(0)
  return rng.uniform(size=(height, width, 3)).astype(np.float32)


def by_pil(image, work):
  """Applies `work` to each channel as a float picture of PIL."""
  return np.stack(
    [np.asarray(work(Image.fromarray(c))) for c in np.moveaxis(image, -1, 0)],
    axis=-1,
  )


@pytest.mark.parametrize("size", [7, 20, 64])
def test_resampling_is_that_of_pil(size):
  image = picture(30, 41)
  for top, left, h, w in [
    (0, 0, 30, 41),
    (3, 5, 20, 20),
    (9, 0, 6, 33),
    (0, 30, 30, 11),
    (29, 40, 1, 1),
  ]:
    box = Box(*map(jnp.int32, (top, left, h, w)))
    found = crop(image, box, size)
    expected = by_pil(
      image,
      lambda p, b=(left, top, left + w, top + h): p.crop(b).resize(
        (size, size), Image.Resampling.BILINEAR
      ),
    )
    assert found.shape == (size, size, 3) and found.dtype == jnp.float32
    np.testing.assert_allclose(found, expected, atol=2e-6)


def test_resampling_bytes_is_that_of_pil_up_to_its_rounding():
  image = (255 * picture(32, 32)).astype(np.uint8)
  box = Box(*map(jnp.int32, (2, 7, 25, 21)))
  found = crop(jnp.float32(image), box, 16)
  cut = Image.fromarray(image).crop((7, 2, 28, 27))
  expected = cut.resize((16, 16), Image.Resampling.BILINEAR)
  # It rounds after each of the two passes.
  assert np.abs(found - np.float32(expected)).max() <= 1.01


def test_a_flip_mirrors_left_and_right():
  box = Box(*map(jnp.int32, (1, 2, 9, 12)))
  image = picture(12, 16)
  plain = crop(image, box, 8)
  flipped = crop(image, box, 8, flip=jnp.array(True))
  np.testing.assert_array_equal(flipped, plain[:, ::-1])
  assert not np.array_equal(flipped, plain)


@pytest.mark.parametrize("shape", [(30, 41), (41, 30), (24, 24)])
@pytest.mark.parametrize("size, resize", [(16, 20), (24, 24), (32, 37)])
def test_evaluation_is_resize_and_centre_crop(shape, size, resize):
  image = picture(*shape)
  found = evaluate(jnp.asarray(image), size, resize=resize)
  shorter = min(shape)
  height, width = (int(resize * side / shorter) for side in shape)
  top, left = round((height - size) / 2), round((width - size) / 2)
  expected = by_pil(
    image,
    lambda p: p.resize((width, height), Image.Resampling.BILINEAR).crop(
      (left, top, left + size, top + size)
    ),
  )
  np.testing.assert_allclose(found, expected, atol=2e-6)


def test_evaluation_at_the_size_of_the_image_changes_nothing():
  image = jnp.asarray(picture(16, 16))
  np.testing.assert_array_equal(evaluate(image, 16), image)
  middle = evaluate(jnp.asarray(picture(16, 20)), 16)
  np.testing.assert_array_equal(middle, picture(16, 20)[:, 2:18])


def test_evaluation_refuses_a_crop_larger_than_what_is_resized():
  with pytest.raises(ValueError, match="at least the size of the view, 16"):
    resize_and_centre_crop(jnp.zeros((20, 20, 3)), 16, resize=12)
