"""What a view is: plain numbers, and the check that they make sense."""

import math
import numbers
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

MIN_SIDE = 4
# The largest value of the fields that start at 0.
BOUNDS = {
  "flip": 1.0,
  "brightness": math.inf,
  "contrast": math.inf,
  "saturation": math.inf,
  "hue": 0.5,
  "jitter_prob": 1.0,
  "gray_prob": 1.0,
  "blur_prob": 1.0,
  "solarise_prob": 1.0,
  "solarise_threshold": 256.0,
}


class ViewSpec(NamedTuple):
  """How to make one view. The defaults are a plain random resized crop.

  A probability or a strength of 0 leaves the step out of the program.

  Attributes:
    size: side of the view in pixels, at least 4.
    scale: smallest and largest area of the crop, fractions of the image's.
    ratio: smallest and largest aspect ratio (width / height) of the crop.
    flip: probability of a horizontal flip.
    brightness: strength of the jitter: factors in [1 - b, 1 + b], from 0.
    contrast: likewise.
    saturation: likewise.
    hue: largest turn of the hue, in turns, at most 0.5.
    jitter_prob: probability of the four together.
    gray_prob: probability of taking the colour away.
    blur_prob: probability of a Gaussian blur.
    blur_sigma: smallest and largest standard deviation, in pixels of the view.
    blur_kernel: number of taps, odd.
    solarise_prob: probability of inverting bright pixels.
    solarise_threshold: the darkest byte (0 to 256) that is inverted.
    mean: per channel, subtracted from values in [0, 1]; 1 or C numbers.
    std: per channel, divides the rest.
    upsample: whether the view may have more pixels than the image.
  """

  size: int
  scale: tuple[float, float] = (0.08, 1.0)
  ratio: tuple[float, float] = (3 / 4, 4 / 3)
  flip: float = 0.0
  brightness: float = 0.0
  contrast: float = 0.0
  saturation: float = 0.0
  hue: float = 0.0
  jitter_prob: float = 0.0
  gray_prob: float = 0.0
  blur_prob: float = 0.0
  blur_sigma: tuple[float, float] = (0.1, 2.0)
  blur_kernel: int = 23
  solarise_prob: float = 0.0
  solarise_threshold: float = 128.0
  mean: tuple[float, ...] = (0.0,)
  std: tuple[float, ...] = (1.0,)
  upsample: bool = False


def check_spec(
  spec: ViewSpec,
  image_shape: Sequence[int] | None = None,
  *,
  name: str = "view",
) -> None:
  """Checks a specification, by itself and against the shape of the images.

  Args:
    spec: the specification.
    image_shape: height, width and channels, if they are known.
    name: what to call the view in a message.

  Raises:
    ValueError: with one line, for the first thing that makes no sense.
  """
  for problem in _problems(spec):
    raise ValueError(f"{name}: {problem}")
  if image_shape is not None:
    for problem in _image_problems(spec, tuple(image_shape)):
      raise ValueError(f"{name}: {problem}")


def _problems(spec: ViewSpec) -> Iterator[str]:
  """Yields what is wrong; each test may rely on those before it."""
  if not _whole(spec.size) or spec.size < MIN_SIDE:
    yield f"size must be a whole number from {MIN_SIDE}, got {spec.size!r}"
  if not _range(spec.scale, 0.0, 1.0):
    yield f"scale must be (low, high), 0 < low <= high <= 1, got {spec.scale!r}"
  for field in ("ratio", "blur_sigma"):
    value = getattr(spec, field)
    if not _range(value, 0.0, math.inf):
      yield f"{field} must be (low, high), 0 < low <= high, got {value!r}"
  for field, high in BOUNDS.items():
    value = getattr(spec, field)
    if not _within(value, 0.0, high):
      wanted = f"from 0 to {high:g}" if high < math.inf else "at least 0"
      yield f"{field} must be {wanted}, got {value!r}"
  kernel = spec.blur_kernel
  if not (_whole(kernel) and kernel % 2 == 1 and kernel > 0):
    yield f"blur_kernel must be an odd number above 0, got {kernel!r}"
  if spec.blur_prob > 0 and kernel >= 2 * spec.size:
    yield (
      f"blur_kernel must be below {2 * spec.size} for views of size "
      f"{spec.size}, got {kernel}"
    )
  for field in ("mean", "std"):
    value = getattr(spec, field)
    if not (_numbers(value) and len(value) in (1, 3)):
      yield f"{field} must be a tuple of 1 or 3 finite numbers, got {value!r}"
  if min(spec.std) <= 0:
    yield f"std must be above 0, got {spec.std!r}"
  if not isinstance(spec.upsample, bool):
    yield f"upsample must be True or False, got {spec.upsample!r}"


def _image_problems(
  spec: ViewSpec, image_shape: tuple[int, ...]
) -> Iterator[str]:
  if len(image_shape) != 3 or image_shape[2] not in (1, 3):
    yield f"images must be [H, W, C], C = 1 or 3, got {list(image_shape)}"
  height, width, channels = image_shape
  pixels = f"{height} x {width}"
  if min(height, width) < MIN_SIDE:
    yield f"images must have {MIN_SIDE} pixels a side or more, got {pixels}"
  if spec.size > min(height, width) and not spec.upsample:
    yield (
      f"size {spec.size} asks for more pixels than the images have, {pixels}; "
      "lower it, or set upsample=True to stretch them"
    )
  if spec.scale[0] * height * width < 1:
    yield (
      f"scale from {spec.scale[0]:g} cuts crops of less than a pixel from "
      f"images of {pixels}; raise its lower end"
    )
  for field in ("mean", "std"):
    count = len(getattr(spec, field))
    if count not in (1, channels):
      yield (
        f"{field} has {count} numbers, but the images have {channels} "
        f"channel(s); give 1 or {channels}"
      )


def _whole(value: Any) -> bool:
  return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def _within(value: Any, low: float, high: float) -> bool:
  real = isinstance(value, numbers.Real) and not isinstance(value, bool)
  return real and math.isfinite(value) and low <= value <= high


def _numbers(values: Any) -> bool:
  return isinstance(values, Sequence) and all(
    _within(value, -math.inf, math.inf) for value in values
  )


def _range(bounds: Any, low: float, high: float) -> bool:
  """Whether bounds are two numbers, low < first <= second <= high."""
  if not _numbers(bounds) or len(bounds) != 2:
    return False
  return low < bounds[0] <= bounds[1] <= high
