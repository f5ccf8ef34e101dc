"""Patch features from k-means, by hand and against a slow way."""

import jax.numpy as jnp
import numpy as np
import pytest

from jlejepa.probes import accuracy, ridge
from jlejepa.probes.kmeans_features import (
  Dictionary,
  encode_image,
  learn_dictionary,
  patch_features,
  triangle,
)


def test_the_triangle_by_hand():
  # Distances 0, 3 and 4 have the mean 7/3.
  x = jnp.array([[0.0, 0.0]])
  centroids = jnp.array([[0.0, 0.0], [3.0, 0.0], [0.0, 4.0]])
  np.testing.assert_allclose(triangle(x, centroids), [[7 / 3, 0, 0]], rtol=1e-6)


def _images(count, size=9, channels=3, seed=0):
  rng = np.random.default_rng(seed)
  shape = (count, size, size, channels)
  return rng.integers(256, size=shape, dtype=np.uint8)


def test_an_image_is_the_sum_over_quarters_of_a_slow_loop():
  rng = np.random.default_rng(1)
  image, size = _images(1)[0], 3
  width = size * size * 3
  mean = rng.normal(size=width)
  whitening, centroids = rng.normal(size=(2, width, width))
  centroids = centroids[:5]
  wanted = np.zeros((2, 2, 5))
  for i in range(7):
    for j in range(7):
      p = image[i : i + 3, j : j + 3].reshape(-1).astype(float)
      p = (p - p.mean()) / np.sqrt(p.var() + 10)
      p = (p - mean) @ whitening
      z = np.linalg.norm(p - centroids, axis=1)
      # Seven rows split four and three.
      wanted[i // 4, j // 4] += np.maximum(0, z.mean() - z)
  dictionary = Dictionary(
    *(jnp.asarray(x, jnp.float32) for x in (mean, whitening, centroids))
  )
  found = encode_image(dictionary, image, size=size)
  np.testing.assert_allclose(found, wanted.ravel(), rtol=1e-4, atol=1e-3)


def test_patches_are_whitened_and_clusters_are_means():
  images = _images(40)
  options = dict(size=3, num_centroids=6, num_patches=2000, seed=3)
  learnt = learn_dictionary(images, iterations=200, **options)
  again = learn_dictionary(images, iterations=200, **options)
  np.testing.assert_array_equal(learnt.centroids, again.centroids)
  # Random pixels: normalised patches have unit variance, and one dimension
  # fewer, for their mean is 0. So whitening shrinks by 1 / sqrt(1.1).
  values = np.linalg.eigvalsh(learnt.whitening)
  np.testing.assert_allclose(values[:-1], 1.1**-0.5, rtol=0.15)
  np.testing.assert_allclose(values[-1], 0.1**-0.5, rtol=1e-3)
  # Lloyd has converged: one more iteration moves nothing.
  more = learn_dictionary(images, iterations=201, **options)
  np.testing.assert_allclose(more.centroids, learnt.centroids, atol=1e-5)


def test_features_tell_textures_apart_that_pixels_do_not():
  # Stripes along or across, at a random phase.
  rng = np.random.default_rng(0)
  labels = np.arange(160) % 2
  phase = rng.integers(4, size=160)
  wave = 128 + 100 * np.sin(np.pi / 2 * (np.arange(12) + phase[:, None]))
  along = np.repeat(wave[:, :, None], 12, axis=2)
  images = np.where(labels[:, None, None], along.swapaxes(1, 2), along)
  images = images + rng.normal(scale=20, size=images.shape)
  images = np.clip(images, 0, 255).astype(np.uint8)[..., None]
  train, test = patch_features(
    images[:100],
    images[100:],
    size=4,
    batch=16,
    num_centroids=8,
    num_patches=1000,
  )
  assert train.shape == (100, 32) and test.shape == (60, 32)
  assert accuracy(ridge(train, labels[:100], test), labels[100:]) == 1
  flat = images.reshape(160, -1).astype(np.float32)
  pixels = accuracy(ridge(flat[:100], labels[:100], flat[100:]), labels[100:])
  assert pixels < 0.8


@pytest.mark.parametrize(
  "images, options, message",
  [
    (_images(4)[..., 0], {}, "images must be uint8 of shape"),
    (_images(4) / 255, {}, "images must be uint8 of shape"),
    (_images(0), {}, "images must be uint8 of shape"),
    (_images(4, size=5), {}, "patches of 6 pixels do not fit images of 5 by 5"),
    (_images(4), {"num_patches": 10}, "10 patches are too few for 400"),
  ],
)
def test_bad_input_is_one_line(images, options, message):
  with pytest.raises(ValueError, match=message):
    learn_dictionary(images, **options)
