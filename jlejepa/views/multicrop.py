"""The views of one image."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jlejepa.views.blur import NO_BLUR, gaussian_blur
from jlejepa.views.colour import Planes, grayscale, random_jitter, solarise
from jlejepa.views.geometry import (
  crop_and_resize,
  random_box,
  resize_and_centre_crop,
)
from jlejepa.views.spec import ViewSpec, check_spec


class Views(NamedTuple):
  """The views of one image, normalised.

  Attributes:
    global_: float32 `[Vg, S, S, C]`.
    local: float32 `[Vl, s, s, C]`; `Vl` may be 0.
  """

  global_: jax.Array
  local: jax.Array


def make_views(
  key: jax.Array,
  image: jax.Array,
  global_spec: ViewSpec,
  local_spec: ViewSpec | None = None,
  *,
  num_global: int,
  num_local: int = 0,
) -> Views:
  """Makes the views of one image; vmap it over a batch of keys and images.

  Each view has its own key, and the global views do not depend on how many
  local ones there are.

  Args:
    key: a typed key, consumed.
    image: `[H, W, C]`, uint8, or floating in [0, 1]; C = 1 or 3.
    global_spec: how to make a global view.
    local_spec: how to make a local view; unused and may be None if there is
      none.
    num_global: `Vg`, at least 1.
    num_local: `Vl`.

  Raises:
    ValueError: for a bad image, number of views or specification.
  """
  if num_global < 1 or num_local < 0:
    raise ValueError(
      "need at least 1 global and at least 0 local views, got "
      f"num_global={num_global} and num_local={num_local}"
    )
  if num_local > 0 and local_spec is None:
    raise ValueError(f"num_local={num_local} views need a local_spec")
  check_spec(global_spec, image.shape, name="global view")
  if num_local > 0:
    check_spec(local_spec, image.shape, name="local view")
  image = to_unit(image)
  global_key, local_key = jax.random.split(key)

  def several(key, spec, count):
    one = functools.partial(_view, image=image, spec=spec)
    return jax.vmap(one)(jax.random.split(key, count))

  global_ = several(global_key, global_spec, num_global)
  if num_local > 0:
    return Views(global_, several(local_key, local_spec, num_local))
  size = global_spec.size if local_spec is None else local_spec.size
  return Views(global_, jnp.zeros((0, size, size, image.shape[-1])))


def make_view(key: jax.Array, image: jax.Array, spec: ViewSpec) -> jax.Array:
  """Makes one view: crop, flip, jitter, grey, blur, solarise, normalise.

  Args:
    key: a typed key, consumed.
    image: as in `make_views`.
    spec: how to make it.

  Returns:
    float32 `[S, S, C]`, normalised.

  Raises:
    ValueError: for a bad image or specification.
  """
  check_spec(spec, image.shape)
  return _view(key, to_unit(image), spec)


def clean_view(
  image: jax.Array, spec: ViewSpec, *, resize: int | None = None
) -> jax.Array:
  """Makes the plain view of one image: resized, centred, normalised.

  Args:
    image: as in `make_views`.
    spec: its size, mean, std and upsample count; nothing is random.
    resize: as in `resize_and_centre_crop`.

  Returns:
    float32 `[S, S, C]`, normalised.

  Raises:
    ValueError: for a bad image, specification or `resize`.
  """
  check_spec(spec, image.shape, name="clean view")
  view = resize_and_centre_crop(to_unit(image), spec.size, resize=resize)
  return _normalise(_split(view), spec)


def to_unit(image: jax.Array) -> jax.Array:
  """Turns uint8 into float32 in [0, 1]; floating images keep their values.

  Raises:
    ValueError: for any other type.
  """
  if image.dtype == jnp.uint8:
    return image.astype(jnp.float32) / 255.0
  if not jnp.issubdtype(image.dtype, jnp.floating):
    raise ValueError(
      "an image must be uint8 (0 to 255) or floating (0 to 1), got "
      f"{image.dtype}"
    )
  return image.astype(jnp.float32)


def _view(key: jax.Array, image: jax.Array, spec: ViewSpec) -> jax.Array:
  box_key, coin_key, jitter_key, sigma_key = jax.random.split(key, 4)
  box = random_box(
    box_key, *image.shape[:2], scale=spec.scale, ratio=spec.ratio
  )
  chances = (
    spec.flip,
    spec.jitter_prob,
    spec.gray_prob,
    spec.blur_prob,
    spec.solarise_prob,
  )
  coins = jax.random.uniform(coin_key, (len(chances),)) < jnp.array(chances)
  flip, jitter, gray, blur, invert = coins

  planes = _split(crop_and_resize(image, box, spec.size, flip=flip))
  if spec.jitter_prob > 0:
    jittered = random_jitter(
      jitter_key,
      planes,
      brightness=spec.brightness,
      contrast=spec.contrast,
      saturation=spec.saturation,
      hue=spec.hue,
    )
    planes = _choose(jitter, jittered, planes)
  if spec.gray_prob > 0:
    planes = _choose(gray, grayscale(planes), planes)
  if spec.blur_prob > 0:
    low, high = spec.blur_sigma
    sigma = jax.random.uniform(sigma_key, minval=low, maxval=high)
    sigma = jnp.where(blur, sigma, NO_BLUR)
    planes = gaussian_blur(planes, sigma, spec.blur_kernel)
  if spec.solarise_prob > 0:
    inverted = solarise(planes, spec.solarise_threshold)
    planes = _choose(invert, inverted, planes)
  return _normalise(planes, spec)


def _choose(chosen: jax.Array, yes: Planes, no: Planes) -> Planes:
  return tuple(jnp.where(chosen, y, n) for y, n in zip(yes, no))


def _split(image: jax.Array) -> Planes:
  return tuple(image[..., channel] for channel in range(image.shape[-1]))


def _normalise(planes: Planes, spec: ViewSpec) -> jax.Array:
  """Joins planes to `[S, S, C]`, minus the mean, over the deviation."""
  count = len(planes)
  mean = spec.mean * (count // len(spec.mean))
  std = spec.std * (count // len(spec.std))
  return jnp.stack([(x - m) / s for x, m, s in zip(planes, mean, std)], axis=-1)
