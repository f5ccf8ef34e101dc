import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from jplanet import preprocess as module
from jplanet.preprocess import postprocess, preprocess, to_uint8

ALL = np.arange(256, dtype=np.uint8)


def every_level(shape=(16, 16, 3)):
  """An image that contains every pixel value."""
  return np.resize(ALL, shape)


@pytest.mark.parametrize(
  "pixel, expected",
  [  # floor(pixel / 8) / 32 - 1/2
    (0, -0.5), (7, -0.5), (8, -0.46875), (127, -0.03125), (128, 0.0),
    (200, 0.28125), (247, 0.4375), (248, 0.46875), (255, 0.46875),
  ],
)  # fmt: skip
def test_five_bits_without_dither_known_answers(pixel, expected):
  image = np.full((1, 1, 3), pixel, np.uint8)
  np.testing.assert_array_equal(preprocess(image), np.full((1, 1, 3), expected))


def test_dither_stays_inside_the_bin_of_its_level(monkeypatch):
  image = every_level()
  plain = preprocess(image)
  for byte in (0, 255):
    monkeypatch.setattr(
      module, "_random_bytes", lambda _, shape, b=byte: jnp.full(shape, b)
    )
    added = preprocess(image, jax.random.key(0)) - plain
    assert (added > 0).all() and (added < 1 / 32).all()
    # (byte + 1/2) / 256 of a bin.
    np.testing.assert_array_equal(added, (byte + 0.5) / 256 / 32)


def test_output_is_float32_between_minus_and_plus_a_half():
  for bits in (1, 5, 8):
    x = preprocess(every_level(), jax.random.key(0), bits)
    assert x.dtype == jnp.float32
    assert x.min() >= -0.5 and x.max() < 0.5


def test_eight_bits_skip_the_floor_and_keep_the_dither():
  image = every_level()
  expected = image.astype(np.float32) / 256 - 0.5
  np.testing.assert_array_equal(preprocess(image, bits=8), expected)
  added = preprocess(image, jax.random.key(0), bits=8) - expected
  assert (added > 0).all() and (added < 1 / 256).all()


def test_dither_is_uniform_with_the_moments_of_a_uniform():
  image = np.zeros((64, 64, 3), np.uint8)
  u = np.asarray(preprocess(image, jax.random.key(1)) + 0.5).ravel() * 32
  # Standard errors of mean and variance over 12,288 draws: 0.0026, 0.0007.
  assert abs(u.mean() - 1 / 2) < 0.013
  assert abs(u.var() - 1 / 12) < 0.0035
  counts = np.bincount(np.int64(u * 256), minlength=256)
  assert stats.chisquare(counts).pvalue > 1e-4


def test_dither_of_neighbouring_pixels_is_independent():
  # Four neighbours share one random word; so would a wrong unpacking repeat.
  image = np.zeros((64, 64, 3), np.uint8)
  u = np.asarray(preprocess(image, jax.random.key(2))).ravel()
  for lag in range(1, 9):
    # A standard error is 1 / sqrt(12,280) = 0.009.
    assert abs(np.corrcoef(u[:-lag], u[lag:])[0, 1]) < 0.045


def test_dither_differs_between_images_of_a_batch_and_between_keys():
  images = np.zeros((3, 8, 8, 3), np.uint8)
  x = np.asarray(preprocess(images, jax.random.key(3)))
  assert len(np.unique(x.reshape(3, -1), axis=0)) == 3
  again = preprocess(images, jax.random.key(3))
  other = preprocess(images, jax.random.key(4))
  np.testing.assert_array_equal(x, again)
  assert (x != other).mean() > 0.9


def test_dither_costs_the_image_loss_half_a_nat():
  # 0.5 * 12288 pixels * (1/32)^2 / 12 = 0.5: the least that a decoder can get
  # above the 11,291.92 of a perfect one.
  image = np.full((64, 64, 3), 100, np.uint8)
  x = preprocess(image, jax.random.key(5))
  centre = preprocess(image) + 0.5 / 32
  np.testing.assert_allclose(0.5 * jnp.square(x - centre).sum(), 0.5, rtol=0.05)


@pytest.mark.parametrize("shape", [(3, 3, 3), (1, 1, 3), (2, 5, 7, 7, 3)])
def test_sizes_that_are_no_multiple_of_a_word_work(shape):
  image = np.zeros(shape, np.uint8)
  x = preprocess(image, jax.random.key(0))
  assert x.shape == shape
  assert len(np.unique(x)) > 2


def test_vmap_with_keys_equals_a_loop():
  images = np.stack([every_level(), every_level()[::-1]])
  keys = jax.random.split(jax.random.key(6), 2)
  batched = jax.jit(jax.vmap(preprocess))(images, keys)
  loop = [preprocess(i, k) for i, k in zip(images, keys)]
  np.testing.assert_array_equal(batched, np.stack(loop))


@pytest.mark.parametrize("bits", [1, 3, 5, 8])
def test_postprocess_undoes_preprocess_whatever_the_dither(bits):
  image = every_level()
  low = 2 ** (8 - bits)
  for key in (None, jax.random.key(7), jax.random.key(8)):
    picture = postprocess(preprocess(image, key, bits), bits)
    np.testing.assert_array_equal(picture, (image // low) / np.float32(2**bits))
    np.testing.assert_array_equal(to_uint8(picture), image // low * low)


def test_postprocessed_pixels_known_answers():
  image = np.uint8([[[127, 200, 255]]])
  picture = postprocess(preprocess(image, jax.random.key(0)))
  np.testing.assert_array_equal(to_uint8(picture), [[[120, 200, 248]]])
  assert picture.max() == 31 / 32


def test_predictions_outside_the_range_are_clipped():
  x = jnp.array([-3.0, -0.51, 0.5, 2.0])
  np.testing.assert_array_equal(postprocess(x), [0, 0, 1, 1])
  np.testing.assert_array_equal(to_uint8(postprocess(x)), [0, 0, 255, 255])
  np.testing.assert_array_equal(to_uint8(jnp.array([-1.0, 2.0])), [0, 255])


@pytest.mark.parametrize("dtype", [np.float32, np.int32, np.int8])
def test_pixels_that_are_not_uint8_are_refused_by_name(dtype):
  image = jnp.zeros((4, 4, 3), dtype)
  with pytest.raises(TypeError, match=np.dtype(dtype).name):
    preprocess(image)
  with pytest.raises(TypeError, match="uint8"):
    jax.jit(preprocess)(image)


@pytest.mark.parametrize("bits", [0, 9, -1])
def test_bits_out_of_range_are_refused(bits):
  with pytest.raises(ValueError, match=f"between 1 and 8, got {bits}"):
    preprocess(every_level(), bits=bits)
  with pytest.raises(ValueError, match="bits"):
    postprocess(jnp.zeros(3), bits=bits)
