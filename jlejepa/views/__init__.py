"""Augmented views of images, made on the device.

Everything is written for one image and one key, with static shapes, to be
vmapped and jitted by the caller.
"""

from jlejepa.views.geometry import resize_and_centre_crop
from jlejepa.views.multicrop import (
  Views,
  clean_view,
  make_view,
  make_views,
)
from jlejepa.views.presets import digits_specs, paper_specs, small_specs
from jlejepa.views.sheet import contact_sheet
from jlejepa.views.spec import ViewSpec, check_spec

__all__ = [
  "ViewSpec",
  "Views",
  "check_spec",
  "clean_view",
  "contact_sheet",
  "digits_specs",
  "make_view",
  "make_views",
  "paper_specs",
  "resize_and_centre_crop",
  "small_specs",
]
