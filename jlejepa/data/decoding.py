"""From the bytes of one image file to an array."""

import os
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageOps

# A whole file has its end marker here; cameras append data of their own.
TAIL_BYTES = 4096
END_MARKERS = {"JPEG": b"\xff\xd9", "MPO": b"\xff\xd9", "PNG": b"IEND"}
ORIENTATION_TAG = 0x0112


class BadImage(ValueError):
  """An image that cannot be used; its text says why in a few words."""


def decode(
  file: Path | BinaryIO, *, size: int = 0, channels: int = 3
) -> np.ndarray:
  """Decodes the first frame of an image file, turned as its EXIF data says.

  Transparency is dropped, sixteen bits become eight.

  Args:
    file: a path or an open binary file.
    size: S: the shorter side is resized to S, antialiased, and the central
      S x S cut out; 0 keeps the image as it is.
    channels: 1 for grey, 3 for RGB, 4 for RGBA.

  Returns:
    uint8 `[H, W, channels]`.

  Raises:
    BadImage: for whatever the file has that is no image.
  """
  if isinstance(file, str | os.PathLike):
    _require_file(file)
  # PIL raises a dozen types, SyntaxError and struct.error among them.
  try:
    with Image.open(file) as image:
      if size:
        # JPEG decodes at a fraction of its size; twice the target is left for
        # the filter to do well.
        image.draft(None, (2 * size, 2 * size))
      image.load()
      return _to_array(_turned(image), size, channels)
  except BadImage:
    raise
  except Exception as error:
    raise BadImage(_reason(error)) from error


def measure(path: Path) -> tuple[int, int]:
  """Returns `(width, height)` as `decode` would see them, from the header.

  A file without its end is decoded to find out if it can be.

  Raises:
    BadImage: as `decode`.
  """
  _require_file(path)
  try:
    with Image.open(path) as image:
      width, height = image.size
      # PIL turns a TIFF itself, and would decode a whole PNG to look for EXIF
      # data behind the pixels.
      known = "exif" in image.info and image.format != "TIFF"
      if known and _orientation(image) >= 5:
        width, height = height, width
      whole = _has_end(path, image.format)
  except Exception as error:
    raise BadImage(_reason(error)) from error
  if not whole:
    decode(path)
  return width, height


def _require_file(path: str | os.PathLike) -> None:
  # PIL would wait for a pipe of that name.
  if not os.path.isfile(path):
    raise BadImage("no file")


def resize(image: np.ndarray, size: int) -> np.ndarray:
  """Does to uint8 `[H, W, 1, 3 or 4]` what `decode` does for its `size`."""
  if not size:
    return image
  array = image[..., 0] if image.shape[-1] == 1 else image
  return _to_array(Image.fromarray(array), size, image.shape[-1])


def _to_array(image: Image.Image, size: int, channels: int) -> np.ndarray:
  mode = {1: "L", 3: "RGB", 4: "RGBA"}[channels]
  if image.mode == "F":
    raise BadImage("floating-point pixels, of unknown range")
  if image.mode.startswith("I"):
    wide = np.asarray(image).astype(np.int64)
    image = Image.fromarray(np.clip(wide >> 8, 0, 255).astype(np.uint8))
  if image.mode in ("P", "LA", "PA", "La"):
    image = image.convert("RGBA")
  image = image.convert(mode)
  if size:
    image = ImageOps.fit(image, (size, size), Image.Resampling.BICUBIC)
  array = np.array(image)
  return array[..., None] if array.ndim == 2 else array


def _turned(image: Image.Image) -> Image.Image:
  try:
    return ImageOps.exif_transpose(image)
  except Exception:  # damaged EXIF data does no harm to the pixels
    return image


def _orientation(image: Image.Image) -> int:
  try:
    value = image.getexif().get(ORIENTATION_TAG, 1)
    return value if value in range(1, 9) else 1
  except Exception:
    return 1


def _has_end(path: Path, kind: str | None) -> bool:
  marker = END_MARKERS.get(kind or "")
  if marker is None:
    return True
  with open(path, "rb") as file:
    end = file.seek(0, 2)
    file.seek(max(end - TAIL_BYTES, 0))
    return marker in file.read()


def _reason(error: Exception) -> str:
  if isinstance(error, Image.DecompressionBombError):
    return "too many pixels, PIL refuses it"
  if isinstance(error, Image.UnidentifiedImageError):
    return "no image"
  # An OSError of the system has an errno; its text repeats the path.
  text = getattr(error, "strerror", None) or str(error)
  return " ".join(text.split())[:100] or type(error).__name__
