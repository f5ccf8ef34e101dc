"""Specifications that have a name: `(global, local)` for `make_views`."""

from jlejepa.views.spec import ViewSpec

IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
CIFAR = {"mean": (0.4914, 0.4822, 0.4465), "std": (0.2470, 0.2435, 0.2616)}
DIGITS = {"mean": (0.3053,), "std": (0.3760,)}


def paper_specs(
  size: int = 224, local_size: int = 96
) -> tuple[ViewSpec, ViewSpec]:
  """The authors' recipe for photographs, used with 2 global and 6 or 8 local.

  Their table of augmentations gives no kernel; 23 taps hold every sigma up to
  2 pixels. A patch of 14 wants `local_size=98`.
  """
  spec = ViewSpec(
    size=size,
    scale=(0.3, 1.0),
    flip=0.5,
    brightness=0.4,
    contrast=0.4,
    saturation=0.2,
    hue=0.1,
    jitter_prob=0.8,
    gray_prob=0.2,
    blur_prob=0.5,
    blur_sigma=(0.1, 2.0),
    blur_kernel=23,
    solarise_prob=0.2,
    solarise_threshold=128.0,
    **IMAGENET,
  )
  return spec, spec._replace(size=local_size, scale=(0.05, 0.3))


def small_specs(
  size: int = 32, local_size: int = 16
) -> tuple[ViewSpec, ViewSpec]:
  """For images of some 32 pixels: easier crops, no blur, no solarisation."""
  spec = ViewSpec(
    size=size,
    scale=(0.25, 1.0),
    flip=0.5,
    brightness=0.4,
    contrast=0.4,
    saturation=0.4,
    hue=0.1,
    jitter_prob=0.8,
    gray_prob=0.2,
    **CIFAR,
  )
  return spec, spec._replace(size=local_size, scale=(0.15, 0.5))


def digits_specs(
  size: int = 8, local_size: int = 6
) -> tuple[ViewSpec, ViewSpec]:
  """For 8 x 8 digits: crops only, since a mirrored digit is no digit."""
  spec = ViewSpec(size=size, scale=(0.5, 1.0), **DIGITS)
  return spec, spec._replace(size=local_size, scale=(0.3, 0.7))
