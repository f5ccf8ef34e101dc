"""A picture of what the network sees."""

import numpy as np

from jlejepa.views.multicrop import Views
from jlejepa.views.spec import ViewSpec

GAP = 2
CELL = 96
PAPER = 160


def contact_sheet(
  images: np.ndarray,
  views: Views,
  global_spec: ViewSpec,
  local_spec: ViewSpec | None = None,
) -> np.ndarray:
  """Tiles images and their views: a row is an image, its global, its local.

  Runs on the host. All pictures keep their relative size; cells below 96
  pixels are enlarged by a whole factor, pixel by pixel.

  Args:
    images: `[N, H, W, C]`, uint8, or floating in [0, 1].
    views: of these images, `[N, Vg, S, S, C]` and `[N, Vl, s, s, C]`.
    global_spec: its mean and std are taken back.
    local_spec: likewise, for the local views; may be None if there are none.

  Returns:
    uint8 `[rows, columns, 3]` on grey.

  Raises:
    ValueError: if the numbers of images and of their views differ.
  """
  images = np.asarray(images)
  if not len(images) == len(views.global_) == len(views.local) > 0:
    raise ValueError(
      "need the views of each image, got "
      f"{len(images)} images, {len(views.global_)} of global and "
      f"{len(views.local)} of local views"
    )
  groups = [_bytes(images)[:, None], _restored(views.global_, global_spec)]
  if views.local.shape[1] > 0:
    groups.append(_restored(views.local, local_spec))
  cell = max(max(group.shape[2:4]) for group in groups)
  factor = max(1, CELL // cell)
  step = cell * factor + GAP
  columns = sum(group.shape[1] for group in groups)
  shape = (len(images) * step + GAP, columns * step + GAP, 3)
  sheet = np.full(shape, PAPER, np.uint8)
  for row in range(len(images)):
    pictures = [picture for group in groups for picture in group[row]]
    for column, picture in enumerate(pictures):
      picture = picture.repeat(factor, axis=0).repeat(factor, axis=1)
      top, left = GAP + row * step, GAP + column * step
      height, width = picture.shape[:2]
      sheet[top : top + height, left : left + width] = picture
  return sheet


def _restored(views: np.ndarray, spec: ViewSpec) -> np.ndarray:
  std, mean = np.float32(spec.std), np.float32(spec.mean)
  return _bytes(np.asarray(views) * std + mean)


def _bytes(images: np.ndarray) -> np.ndarray:
  if images.dtype != np.uint8:
    images = np.round(255 * np.clip(images, 0, 1)).astype(np.uint8)
  return images
