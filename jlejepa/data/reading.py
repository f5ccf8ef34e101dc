"""Images of many files as one array, in memory or decoded when needed."""

import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np

from jlejepa.data.dataset import some
from jlejepa.data.decoding import BadImage
from jlejepa.runtime.errors import UserError, require

# PIL decodes outside the interpreter's lock.
THREADS = 8
# Fewer source pixels than this are decoded at once: seconds, and every damaged
# file is known before training.
EAGER_PIXELS = 2**28
# Reports of damage on the way; a disk that is gone would make thousands.
MAX_LINES = 10

Read = Callable[[int], np.ndarray]


class Reader(NamedTuple):
  """How to get at images one by one.

  Attributes:
    read: number to uint8 `[H, W, C]`; raises `BadImage`.
    names: what messages call each image.
    labels: int `[N]`, or None.
    shape: `(H, W, C)` of every image.
    pixels: of all images before resizing; infinite if not known.
  """

  read: Read
  names: Sequence[str]
  labels: np.ndarray | None
  shape: tuple[int, int, int]
  pixels: float


class LazyImages:
  """Images decoded when an index asks for them, by threads.

  Behaves as a uint8 array `[N, H, W, C]` with one axis to index. The first ones
  that fit into `max_bytes` stay in memory once decoded: every epoch needs all
  images once, so that no other choice saves more. An image that turns out to be
  damaged is replaced by the next one with its label.
  """

  dtype = np.dtype(np.uint8)
  ndim = 4

  def __init__(self, reader: Reader, max_bytes: int):
    """Makes the array; nothing is decoded yet."""
    self.shape = (len(reader.names), *reader.shape)
    self.failed: dict[int, str] = {}
    self._reader = reader
    kept = min(len(self), max_bytes // int(np.prod(reader.shape)))
    self._kept = np.empty((kept, *reader.shape), np.uint8)
    self._have = np.zeros(kept, bool)
    self._pool = ThreadPoolExecutor(THREADS, "images")
    self._lock = threading.Lock()

  def __len__(self) -> int:
    return self.shape[0]

  def __getitem__(self, index: Any) -> np.ndarray:
    """Returns the images of an index as NumPy takes it.

    Raises:
      IndexError: for an index out of range.
      UserError: if more than half of the images are damaged.
    """
    chosen = np.arange(len(self))[index]
    if chosen.ndim == 0:
      return self._image(int(chosen))
    images = np.empty((*chosen.shape, *self.shape[1:]), np.uint8)
    flat = images.reshape(-1, *self.shape[1:])
    found = self._pool.map(self._image, chosen.ravel().tolist())
    for place, image in enumerate(found):
      flat[place] = image
    return images

  def _image(self, number: int) -> np.ndarray:
    image = self._read(number)
    while image is None:
      number = self._stand_in(number)
      image = self._read(number)
    return image

  def _read(self, number: int) -> np.ndarray | None:
    """Returns one image, or None if it is damaged."""
    if number in self.failed:
      return None
    keep = number < len(self._have)
    if keep and self._have[number]:
      return self._kept[number]
    try:
      image = _read_one(self._reader, number)
    except BadImage as error:
      self._leave_out(number, str(error))
      return None
    if keep:
      self._kept[number] = image
      self._have[number] = True
    return image

  def _leave_out(self, number: int, reason: str) -> None:
    text = f"{self._reader.names[number]}: {reason}"
    # Threads find damage at the same time, and the same damage.
    with self._lock:
      if number in self.failed:
        return
      self.failed[number] = text
      if len(self.failed) <= MAX_LINES:
        print(f"left out, another stands in: {text}", file=sys.stderr)
      check_loss(list(self.failed.values()), len(self), "images")

  def _stand_in(self, number: int) -> int:
    """Returns the next number with the same label, round to the first."""
    labels = self._reader.labels
    order = (number + 1 + np.arange(len(self))) % len(self)
    if labels is not None:
      order = order[labels[order] == labels[number]]
    good = (int(i) for i in order if int(i) not in self.failed)
    found = next(good, None)
    require(
      found is not None,
      f"every image like {self._reader.names[number]} is damaged: remove its"
      " class",
    )
    return found


def read_images(
  reader: Reader, max_bytes: int, name: str
) -> tuple[Any, np.ndarray, tuple[str, ...]]:
  """Decodes images at once where that is quick and fits, else when needed.

  Returns:
    The images, which of the reader's they are, and a text per image left out.

  Raises:
    UserError: if more than half are damaged or fewer than two are left.
  """
  count = len(reader.names)
  _check_count(count, name)
  nbytes = count * int(np.prod(reader.shape))
  if reader.pixels > EAGER_PIXELS or nbytes > max_bytes:
    return LazyImages(reader, max_bytes), np.arange(count), ()
  with ThreadPoolExecutor(THREADS) as pool:
    results = list(pool.map(lambda i: _try(reader, i), range(count)))
  good = [i for i in range(count) if not isinstance(results[i], BadImage)]
  left_out = tuple(
    f"{reader.names[i]}: {result}"
    for i, result in enumerate(results)
    if isinstance(result, BadImage)
  )
  check_loss(left_out, count, name)
  _check_count(len(good), name)
  return np.stack([results[i] for i in good]), np.array(good), left_out


def check_loss(left_out: Sequence[str], count: int, name: str) -> None:
  """Requires that at most half of the images are left out.

  Raises:
    UserError: naming a few of them.
  """
  if len(left_out) > count / 2:
    raise UserError(
      f"{name}: {len(left_out)} of {count} images cannot be read"
      f" ({some(left_out)}): replace them"
    )


def _check_count(count: int, name: str) -> None:
  require(count > 0, f"{name}: there are no images")
  require(
    count > 1, f"{name}: one image: SIGReg compares images, give at least 2"
  )


def _try(reader: Reader, number: int) -> np.ndarray | BadImage:
  try:
    return _read_one(reader, number)
  except BadImage as error:
    return error


def _read_one(reader: Reader, number: int) -> np.ndarray:
  image = reader.read(number)
  if image.shape != reader.shape:
    raise BadImage(
      f"shape {list(image.shape)}, others have {list(reader.shape)}"
    )
  return image
