"""Arrays and digits."""

import numpy as np
import pytest
from sklearn.datasets import load_digits

from jlejepa.data import describe, from_arrays, load_dataset

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (10, 4, 5, 3), np.uint8)
LABELS = np.arange(10) % 2


# Arrays.


def test_bytes_are_taken_as_they_are():
  data = from_arrays(IMAGES, LABELS[:, None], ["cat", "dog"], "pets")
  assert data.images is IMAGES
  assert data.labels.dtype == np.int32
  np.testing.assert_array_equal(data.labels, LABELS)
  assert data.class_names == ("cat", "dog") and data.num_classes == 2
  text = describe(data)
  assert text == "pets: 10 images of 4x5x3, 2 classes"


def test_grey_images_get_a_channel():
  assert from_arrays(IMAGES[..., 0]).images.shape == (10, 4, 5, 1)


def test_float_images_become_bytes():
  images = IMAGES / 255
  np.testing.assert_array_equal(from_arrays(images).images, IMAGES)
  half = np.full((2, 2, 2, 1), 0.5, np.float16)
  np.testing.assert_array_equal(from_arrays(half).images, 128)


@pytest.mark.parametrize("shape", [(6, 3), (6, 50, 2)])
def test_vectors_and_series_stay_floats(shape):
  x = RNG.normal(size=shape) * 100
  data = from_arrays(x)
  assert data.images.dtype == np.float32
  np.testing.assert_allclose(data.images, x, rtol=1e-6)
  assert "examples of" in describe(data) and "no labels" in describe(data)


def test_unknown_labels():
  data = from_arrays(IMAGES, [0, -1] * 5)
  assert data.num_classes == 1
  assert "5 without a label" in describe(data)
  assert from_arrays(IMAGES, [-1] * 10).labels is None


ROWS = [np.zeros((4, 4, 3), np.uint8)] * 2 + [np.zeros((5, 4, 3), np.uint8)]
OBJECTS = np.empty(3, object)
OBJECTS[:] = ROWS


@pytest.mark.parametrize(
  "arguments, match",
  [
    ((IMAGES[:1],), "at least 2"),
    ((IMAGES[:0],), "at least 2"),
    ((IMAGES[:, :0],), "empty"),
    ((np.uint8(3),), "must be an array"),
    ((IMAGES.astype(np.int64),), "int64.*astype"),
    ((IMAGES > 3,), "bool"),
    ((IMAGES.astype(complex),), "complex"),
    ((IMAGES.astype(str),), "give uint8"),
    ((IMAGES[:, 0, 0],), r"\[N, H, W, C\]"),
    ((IMAGES.astype(float),), r"run from .* to 255: scale them to \[0, 1\]"),
    ((IMAGES / 255 - 0.5,), "scale them"),
    ((np.where(IMAGES > 9, np.nan, 0.0),), "not finite"),
    ((np.full((3, 2), np.inf),), "not finite"),
    ((np.zeros(7),), r"\[N, D\]"),
    ((IMAGES.transpose(0, 3, 1, 2).repeat(2, 3),), "channels first"),
    ((ROWS,), r"unequal size: number 0 is \[4, 4, 3\], number 2 is \[5, 4"),
    ((OBJECTS,), "unequal size"),
    (([{}, {}],), "objects"),
    ((IMAGES, LABELS[:9]), "one for each of the 10"),
    ((IMAGES, np.eye(10)), "one for each"),
    ((IMAGES, LABELS + 0.5), "integers"),
    ((IMAGES, list("abababcdef")), "integers"),
    ((IMAGES, LABELS - 3), "run from -3 to -2"),
    ((IMAGES, LABELS + 1, ["a", "b"]), "run from 1 to 2: give 0 to 1"),
    ((IMAGES, LABELS * 10**7), "run from 0 to 10000000"),
    ((IMAGES, LABELS.astype(np.uint64) * 2**63), "run from 0 to"),
  ],
)
def test_bad_arrays_are_refused(arguments, match, refused):
  refused(match, from_arrays, *arguments)


# Digits.


def test_digits_are_the_bundled_ones_split_within_each_class():
  train, test = load_dataset("digits"), load_dataset("digits", "test")
  bunch = load_digits()
  assert train.images.shape[1:] == (8, 8, 1) and train.images.max() == 255
  assert len(train.images) + len(test.images) == 1797
  both = np.concatenate([train.images, test.images]).reshape(1797, 64)
  labels = np.concatenate([train.labels, test.labels])
  rows = {(*x, y) for x, y in zip(both.tolist(), labels.tolist(), strict=True)}
  expected = np.rint(bunch.data / 16 * 255).astype(int).tolist()
  assert rows == {
    (*x, y) for x, y in zip(expected, bunch.target.tolist(), strict=True)
  }
  share = np.bincount(test.labels) / np.bincount(bunch.target)
  np.testing.assert_allclose(share, 0.2, atol=0.003)
  again = load_dataset("digits", "test")
  np.testing.assert_array_equal(test.images, again.images)
  assert len(load_dataset("digits", holdout=0).images) == 1797
  assert train.class_names == tuple("0123456789")


@pytest.mark.parametrize(
  "arguments, options, match",
  [
    (("digits", "tset"), {}, "did you mean test"),
    (("digits", "test"), dict(holdout=0), "nothing to test on"),
    (("digits",), dict(holdout=1), "holdout"),
    (("digits",), dict(holdout=float("nan")), "holdout"),
    (("digits",), dict(size=-1), "size"),
    (("digits",), dict(max_bytes=0), "max_bytes"),
    (("",), {}, "no source"),
    ((3,), {}, "not a text"),
    (("nowhere.npz",), {}, "no such file"),
  ],
)
def test_bad_sources_are_refused(arguments, options, match, refused):
  refused(match, load_dataset, *arguments, **options)
