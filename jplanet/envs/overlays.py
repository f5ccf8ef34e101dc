"""What rays do not find: sites, tendons, and what one can see through."""

from typing import Any, NamedTuple

import mujoco
import numpy as np

from jplanet.envs import shading, shapes

_TYPES = mujoco.mjtGeom
_MEET = {
  int(_TYPES.mjGEOM_SPHERE): shapes.ellipsoid,
  int(_TYPES.mjGEOM_ELLIPSOID): shapes.ellipsoid,
  int(_TYPES.mjGEOM_CAPSULE): shapes.capsule,
  int(_TYPES.mjGEOM_CYLINDER): shapes.cylinder,
  int(_TYPES.mjGEOM_BOX): shapes.box,
}
_ROUND = (int(_TYPES.mjGEOM_SPHERE), int(_TYPES.mjGEOM_CAPSULE))


class Camera(NamedTuple):
  """A camera with a square picture.

  Attributes:
    eye: `[3]`, in metres.
    frame: `[3, 3]`, rows right, up and forward.
    half: tangent of half the field of view.
    rays: float32 `[3, side, side]`, unit.
  """

  eye: np.ndarray
  frame: np.ndarray
  half: float
  rays: np.ndarray


def drawable(kind: int) -> bool:
  """Tells whether a shape of MuJoCo's type `kind` can be drawn here."""
  return int(kind) in _MEET


def draw_overlays(
  color: np.ndarray,
  depth: np.ndarray,
  camera: Camera,
  geoms: list[Any],
  lights: list[shading.Light],
) -> None:
  """Draws shapes over a picture, the farthest first.

  Args:
    color: float32 `[3, side, side]`, changed in place.
    depth: float32 `[side, side]`, distance along each ray, changed in place.
    camera: the camera that took the picture.
    geoms: MuJoCo's scene geoms, sites and tendons included.
    lights: lights of the scene; these shapes receive no shadows.
  """
  strings: dict[tuple, list[Any]] = {}
  solids = []
  for geom in geoms:
    if geom.rgba[3] <= 0 or not drawable(geom.type):
      continue
    thick = _pixels(camera, geom.pos, geom.size[0])
    if geom.type in _ROUND and thick < 1:
      strings.setdefault(tuple(geom.rgba.tolist()), []).append(geom)
    else:
      solids.append(geom)
  far = lambda geom: -np.linalg.norm(geom.pos - camera.eye)
  for geom in sorted(solids, key=far):
    window = _window(camera, geom)
    if window is not None:
      _solid(color[:, *window], depth[window], camera, window, geom, lights)
  for pieces in strings.values():
    _stroke(color, depth, camera, pieces, lights)


def _pixels(camera, place, length):
  """Returns how many pixels a length covers at a place."""
  away = max(float(camera.frame[2] @ (place - camera.eye)), 1e-6)
  return length / away / camera.half * camera.rays.shape[1] / 2


def _project(camera, places):
  """Returns column, row and distance along the axis of places `[M, 3]`."""
  right, up, away = camera.frame @ (places - camera.eye).T
  away = np.maximum(away, 1e-6)
  side = camera.rays.shape[1]
  scale = side / 2 / (away * camera.half)
  middle = (side - 1) / 2
  return np.stack([middle + right * scale, middle - up * scale, away], 1)


def _window(camera, geom):
  """Returns slices that hold a shape's picture; None where it is not seen."""
  side = camera.rays.shape[1]
  if geom.type in _ROUND:
    reach = geom.size[2] + geom.size[0]
  else:
    reach = np.linalg.norm(geom.size)
  away = float(camera.frame[2] @ (geom.pos - camera.eye))
  if away < -reach:
    return None
  if away < 2 * reach:
    return slice(0, side), slice(0, side)
  ((column, row, _),) = _project(camera, geom.pos[None])
  # Seen off the axis a ball spreads: 1.5 covers a field of view of 90 degrees.
  extent = 1.5 * _pixels(camera, geom.pos, reach) * away / (away - reach) + 1
  span = [
    slice(max(0, int(middle - extent)), min(side, int(middle + extent) + 2))
    for middle in (row, column)
  ]
  if any(one.start >= one.stop for one in span):
    return None
  return tuple(span)


def _solid(color, depth, camera, window, geom, lights):
  frame = geom.mat.reshape(3, 3).astype(np.float32)
  rays = camera.rays[:, *window]
  shape = rays.shape[1:]
  rays = rays.reshape(3, -1)
  origin = frame.T @ (camera.eye - geom.pos).astype(np.float32)
  meet = _MEET[int(geom.type)]
  distance, normal = meet(geom.size, origin, frame.T @ rays)
  hit = np.flatnonzero(distance < depth.reshape(-1))
  if not hit.size:
    return
  eye = camera.eye.astype(np.float32)[:, None]
  rays, distance = rays[:, hit], distance[hit].astype(np.float32)
  surface = _surface(geom, eye + distance * rays, frame @ normal[:, hit], -rays)
  row, column = np.unravel_index(hit, shape)
  alpha = float(geom.rgba[3])
  paint = shading.lit_color(lights, surface)
  below = color[:, row, column]
  color[:, row, column] = below + alpha * (paint - below)
  if alpha > 0.995:
    depth[row, column] = distance


def _stroke(color, depth, camera, geoms, lights):
  """Draws thin round things of one colour, such as the pieces of a string.

  Each covers its share of a pixel, or a string would fall into dots.
  """
  side = camera.rays.shape[1]
  places = np.array([geom.pos for geom in geoms], np.float64)
  size = np.array([geom.size for geom in geoms], np.float64)
  ball = np.array([geom.type for geom in geoms]) == _ROUND[0]
  axis = np.array([geom.mat.reshape(3, 3)[:, 2] for geom in geoms])
  axis = axis * np.where(ball, 0, size[:, 2])[:, None]
  start = _project(camera, places - axis)
  run = _project(camera, places + axis) - start
  radius = size[:, 0] / start[:, 2] / camera.half * side / 2
  ends = np.concatenate([start, start + run])[:, :2]
  first = np.clip(ends.min(0) - 2, 0, side).astype(int)
  last = np.clip(ends.max(0) + 3, 0, side).astype(int)
  window = (slice(first[1], last[1]), slice(first[0], last[0]))
  if (first >= last).any():
    return
  # Axes: piece, row, column.
  lift = lambda values: values.astype(np.float32)[:, None, None]
  down, across = np.ogrid[window]
  across = (across - lift(start[:, 0])).astype(np.float32)
  down = (down - lift(start[:, 1])).astype(np.float32)
  run_x, run_y, run_away = (lift(one) for one in run.T)
  length = np.maximum(run_x**2 + run_y**2, 1e-12)
  part = np.clip((across * run_x + down * run_y) / length, 0, 1)
  off = np.sqrt((across - part * run_x) ** 2 + (down - part * run_y) ** 2)
  radius = lift(radius)
  cover = np.minimum(off + radius, 0.5) - np.maximum(off - radius, -0.5)
  rays = camera.rays[:, *window]
  away = np.einsum("i,ihw->hw", camera.frame[2], rays) * depth[window]
  cover = np.where(lift(start[:, 2]) + part * run_away < away, cover, 0)
  # Pieces that meet in a pixel are one string.
  cover = np.clip(cover.max(0), 0, 1) * float(geoms[0].rgba[3])
  middle = places.mean(0)
  view = camera.eye - middle
  view = (view / np.linalg.norm(view)).astype(np.float32)[:, None]
  surface = _surface(geoms[0], middle[:, None], view, view)
  paint = shading.lit_color(lights, surface)[:, :, None]
  below = color[:, *window]
  below += cover.astype(np.float32) * (paint - below)


def _surface(geom, point, normal, view):
  n = point.shape[1]
  fill = lambda value: np.full(n, value, np.float32)
  return shading.Surface(
    point=point,
    normal=normal,
    view=view,
    color=np.repeat(geom.rgba[:3, None], n, 1),
    specular=fill(geom.specular),
    shininess=fill(geom.shininess * 128),
    emission=fill(geom.emission),
  )
