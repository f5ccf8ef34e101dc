"""Where rays meet simple shapes, in a shape's own frame.

Vectors lie along the first axis, `[3, n]`. A shape is centred on the origin
and its long axis is z, with the sizes that MuJoCo gives to what it draws.
"""

import numpy as np

_FAR = np.float32(np.inf)


def ellipsoid(size, origin, rays):
  """Meets an ellipsoid with half axes `size [3]`; a sphere is one.

  Args:
    size: `[3]`, in metres.
    origin: `[3]`, where the rays start.
    rays: `[3, n]`.

  Returns:
    Distances `[n]` in lengths of a ray, infinite for a miss, and outward unit
    normals `[3, n]`.
  """
  start = (origin / size)[:, None]
  along = rays / size[:, None]
  distance = _ball(start, along, 1.0)
  place = origin[:, None] + _finite(distance) * rays
  return distance, _unit(place / (size * size)[:, None])


def capsule(size, origin, rays):
  """Meets a capsule of radius `size[0]`, half length `size[2]`; as above."""
  radius, half = size[0], size[2]
  distance = _side(radius, half, origin[:, None], rays)
  for end in (-half, half):
    centre = np.array([0, 0, end], rays.dtype)
    cap = _ball((origin - centre)[:, None], rays, radius)
    distance = np.minimum(distance, cap)
  place = origin[:, None] + _finite(distance) * rays
  place[2] -= np.clip(place[2], -half, half)
  return distance, _unit(place)


def cylinder(size, origin, rays):
  """Meets a cylinder of radius `size[0]`, half length `size[2]`; as above."""
  radius, half = size[0], size[2]
  side = _side(radius, half, origin[:, None], rays)
  down = np.where(rays[2] == 0, 1e-12, rays[2])
  # Only the cap that faces the origin can be seen.
  cap = (-np.sign(down) * half - origin[2]) / down
  place = origin[:2, None] + cap * rays[:2]
  inside = (cap > 0) & ((place * place).sum(0) <= radius * radius)
  cap = np.where(inside, cap, _FAR)
  distance = np.minimum(side, cap)
  normal = origin[:, None] + _finite(distance) * rays
  normal[2] = 0
  on_cap = cap < side
  normal[:, on_cap] = 0
  normal[2, on_cap] = -np.sign(down[on_cap])
  return distance, _unit(normal)


def box(size, origin, rays):
  """Meets a box with half edges `size [3]`; as above."""
  along = np.where(rays == 0, 1e-12, rays)
  first = (-np.sign(along) * size[:, None] - origin[:, None]) / along
  last = (np.sign(along) * size[:, None] - origin[:, None]) / along
  near, far = first.max(0), last.min(0)
  distance = np.where((near <= far) & (near > 0), near, _FAR)
  face = first.argmax(0)
  columns = np.arange(rays.shape[1])
  normal = np.zeros_like(rays)
  normal[face, columns] = -np.sign(along[face, columns])
  return distance, normal


def _ball(start, along, radius):
  a = (along * along).sum(0)
  b = (start * along).sum(0)
  c = (start * start).sum(0) - radius * radius
  square = b * b - a * c
  distance = (-b - np.sqrt(np.maximum(square, 0))) / a
  return np.where((square >= 0) & (distance > 0), distance, _FAR)


def _side(radius, half, start, rays):
  a = np.maximum((rays[:2] * rays[:2]).sum(0), 1e-12)
  b = (start[:2] * rays[:2]).sum(0)
  c = (start[:2] * start[:2]).sum(0) - radius * radius
  square = b * b - a * c
  distance = (-b - np.sqrt(np.maximum(square, 0))) / a
  inside = np.abs(start[2] + distance * rays[2]) <= half
  return np.where(inside & (square >= 0) & (distance > 0), distance, _FAR)


def _finite(distance):
  return np.where(np.isfinite(distance), distance, 0)


def _unit(vectors):
  length = np.sqrt((vectors * vectors).sum(0))
  return vectors / np.maximum(length, 1e-12)
