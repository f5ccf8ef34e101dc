"""Anti-aliased drawing by signed distance.

Every pixel asks how far its centre is from a shape, so that a picture is a
handful of array operations which batch under `vmap`.
"""

import jax.numpy as jnp
import numpy as np

from jplanet.types import Array


def pixel_centres(size: int, extent: float) -> np.ndarray:
  """Returns the world positions of pixel centres, `[S, S, 2]` as (x, y).

  The picture shows `[-extent, extent]^2`, y upwards.
  """
  x = ((np.arange(size) + 0.5) / size * 2 - 1) * extent
  grid = np.stack(np.meshgrid(x, -x), axis=-1)
  return grid.astype(np.float32)


def disc(points: np.ndarray, centre: Array, radius: float) -> Array:
  """Returns the signed distance `[S, S]` to a disc, negative inside.

  Args:
    points: `[S, S, 2]`.
    centre: `[2]`.
    radius: in world units.
  """
  x, y = points[..., 0] - centre[0], points[..., 1] - centre[1]
  return jnp.hypot(x, y) - radius


def capsule(
  points: np.ndarray, start: Array, end: Array, radius: float
) -> Array:
  """Returns the signed distance `[S, S]` to a thick segment, round at its ends.

  Args:
    points: `[S, S, 2]`.
    start: `[2]`.
    end: `[2]`, another point than `start`.
    radius: half of the thickness, in world units.
  """
  x, y = points[..., 0] - start[0], points[..., 1] - start[1]
  along_x, along_y = end[0] - start[0], end[1] - start[1]
  along = (x * along_x + y * along_y) / (along_x**2 + along_y**2)
  along = jnp.clip(along, 0, 1)
  return jnp.hypot(x - along * along_x, y - along * along_y) - radius


def paint(
  image: Array, distance: Array, colour: tuple[float, ...], pixel: float
) -> Array:
  """Paints a shape over an image, with an edge one pixel soft.

  Args:
    image: `[S, S, 3]` in [0, 1].
    distance: `[S, S]`, signed, in world units.
    colour: red, green and blue in [0, 1].
    pixel: side of a pixel in world units.

  Returns:
    `[S, S, 3]`.
  """
  cover = jnp.clip(0.5 - distance / pixel, 0, 1)[..., None]
  return image * (1 - cover) + cover * np.reshape(colour, (1, 1, 3))


def canvas(size: int, colour: tuple[float, ...]) -> Array:
  """Returns an image of one colour, float32 `[S, S, 3]`."""
  return jnp.full((size, size, 3), np.asarray(colour, np.float32))


def to_uint8(image: Array) -> Array:
  """Rounds an image in [0, 1] to uint8."""
  return jnp.round(255 * image).astype(jnp.uint8)
