"""Patch features from k-means: a strong baseline that trains no network.

Coates, Lee and Ng 2011, "An Analysis of Single-Layer Networks in Unsupervised
Feature Learning": whitened patches, a dictionary of centroids, the triangle
encoding of every patch, and sums over the four quarters of the image.
"""

import warnings
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy.cluster.vq import kmeans2

# Section 4.2 of the paper, for pixels of 0 to 255 and unit-variance patches.
_CONTRAST = 10.0
_ZCA = 0.1


class Dictionary(NamedTuple):
  """What is learnt from patches, `P` values each (`size * size * C`).

  Attributes:
    mean: `[P]`, of normalised patches.
    whitening: `[P, P]`, symmetric.
    centroids: `[K, P]`, of whitened patches.
  """

  mean: jax.Array
  whitening: jax.Array
  centroids: jax.Array


def learn_dictionary(
  images: np.ndarray,
  *,
  size: int = 6,
  num_centroids: int = 400,
  num_patches: int = 100_000,
  iterations: int = 10,
  seed: int = 0,
) -> Dictionary:
  """Clusters whitened patches taken at random places of random images.

  Args:
    images: uint8 `[N, H, W, C]`.
    size: of the square patches.
    num_centroids: `K`.
    num_patches: from which whitening and centroids are learnt.
    iterations: of Lloyd's algorithm, from random patches.
    seed: of places and first centroids.

  Raises:
    ValueError: for images that are not uint8 `[N, H, W, C]` or smaller than a
      patch, or fewer patches than centroids.
  """
  if images.ndim != 4 or images.dtype != np.uint8 or not len(images):
    raise ValueError(
      "images must be uint8 of shape [N, H, W, C], got "
      f"{images.dtype} {list(images.shape)}"
    )
  height, width = images.shape[1:3]
  if not 1 <= size <= min(height, width):
    raise ValueError(
      f"patches of {size} pixels do not fit images of {height} by {width}"
    )
  if num_patches < num_centroids:
    raise ValueError(
      f"{num_patches} patches are too few for {num_centroids} centroids"
    )
  rng = np.random.default_rng(seed)
  n = rng.integers(len(images), size=num_patches)
  top = rng.integers(height - size + 1, size=num_patches)
  left = rng.integers(width - size + 1, size=num_patches)
  windows = np.lib.stride_tricks.sliding_window_view(
    images, (size, size), axis=(1, 2)
  )
  # A window's axes are [C, size, size].
  found = np.moveaxis(windows[n, top, left], 1, -1)
  x = np.asarray(_normalise(found.reshape(num_patches, -1)))
  mean = x.mean(axis=0)
  values, vectors = np.linalg.eigh(np.cov(x, rowvar=False, dtype=np.float64))
  whitening = vectors / np.sqrt(np.maximum(values, 0) + _ZCA) @ vectors.T
  whitening = whitening.astype(np.float32)
  white = (x - mean) @ whitening
  start = white[rng.choice(num_patches, num_centroids, replace=False)]
  with warnings.catch_warnings():
    # An empty cluster keeps its centroid, which does no harm.
    warnings.simplefilter("ignore", UserWarning)
    centroids, _ = kmeans2(white, start, iter=iterations, minit="matrix")
  return Dictionary(
    jnp.asarray(mean),
    jnp.asarray(whitening),
    jnp.asarray(centroids, jnp.float32),
  )


def encode_image(
  dictionary: Dictionary, image: jax.Array, *, size: int
) -> jax.Array:
  """Sums the triangle encoding of all patches over quarters of the image.

  Args:
    dictionary: with `K` centroids.
    image: `[H, W, C]`, values 0 to 255.
    size: of the patches.

  Returns:
    float32 `[4 * K]`.
  """
  rows = image.shape[0] - size + 1
  columns = image.shape[1] - size + 1
  patches = jnp.stack(
    [
      image[i : i + rows, j : j + columns]
      for i in range(size)
      for j in range(size)
    ],
    axis=2,
  ).reshape(rows * columns, -1)
  white = (_normalise(patches) - dictionary.mean[None]) @ dictionary.whitening
  code = triangle(white, dictionary.centroids)
  code = code.reshape(rows, columns, -1)
  half = lambda x, axis: jnp.array_split(x, 2, axis=axis)
  return jnp.concatenate(
    [part.sum(axis=(0, 1)) for band in half(code, 0) for part in half(band, 1)]
  )


def triangle(x: jax.Array, centroids: jax.Array) -> jax.Array:
  """Computes `max(0, mean distance - distance)` to each centroid.

  Args:
    x: `[N, P]`.
    centroids: `[K, P]`.

  Returns:
    `[N, K]`; about half of it is 0.
  """
  square = (
    jnp.sum(x**2, axis=1, keepdims=True)
    - 2 * x @ centroids.T
    + jnp.sum(centroids**2, axis=1)[None]
  )
  distance = jnp.sqrt(jnp.maximum(square, 0))
  return jnp.maximum(distance.mean(axis=1, keepdims=True) - distance, 0)


def patch_features(
  train: np.ndarray,
  test: np.ndarray,
  *,
  size: int = 6,
  batch: int = 8,
  **options,
) -> tuple[np.ndarray, np.ndarray]:
  """Learns a dictionary from training images and encodes both sets.

  Args:
    train: uint8 `[N, H, W, C]`.
    test: uint8 `[M, H, W, C]`.
    size: of the patches.
    batch: images at a time.
    **options: of `learn_dictionary`.

  Returns:
    Features `[N, 4 * K]` and `[M, 4 * K]`.

  Raises:
    ValueError: as `learn_dictionary`.
  """
  dictionary = learn_dictionary(train, size=size, **options)
  encode = jax.jit(
    jax.vmap(lambda image: encode_image(dictionary, image, size=size))
  )

  def encode_all(images: np.ndarray) -> np.ndarray:
    parts = []
    for start in range(0, len(images), batch):
      chunk = images[start : start + batch]
      # Padded, so that the last one compiles nothing.
      padded = np.resize(chunk, (batch, *chunk.shape[1:]))
      parts.append(np.asarray(encode(padded))[: len(chunk)])
    return np.concatenate(parts)

  return encode_all(train), encode_all(test)


def _normalise(patches: jax.Array) -> jax.Array:
  """Takes brightness and contrast from patches `[N, P]`."""
  x = jnp.asarray(patches, jnp.float32)
  x = x - x.mean(axis=1, keepdims=True)
  return x / jnp.sqrt(x.var(axis=1, keepdims=True) + _CONTRAST)
