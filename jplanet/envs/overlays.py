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
  far = lambda geom: -np.linalg.norm(geom.pos - camera.eye)
  for geom in sorted(geoms, key=far):
    if geom.rgba[3] <= 0 or not drawable(geom.type):
      continue
    window = _window(camera, geom)
    if window is None:
      continue
    thick = _pixels(camera, geom.pos, geom.size[0])
    if geom.type in _ROUND and thick < 1:
      _stroke(color[:, *window], depth[window], camera, window, geom, lights)
    else:
      _solid(color[:, *window], depth[window], camera, window, geom, lights)


def _pixels(camera, place, length):
  """Returns how many pixels a length covers at a place."""
  away = max(float(camera.frame[2] @ (place - camera.eye)), 1e-6)
  return length / away / camera.half * camera.rays.shape[1] / 2


def _project(camera, place):
  """Returns column, row and distance along the axis, of a place `[3]`."""
  right, up, away = camera.frame @ (place - camera.eye)
  away = max(float(away), 1e-6)
  side = camera.rays.shape[1]
  scale = side / 2 / (away * camera.half)
  middle = (side - 1) / 2
  return np.array([middle + right * scale, middle - up * scale, away])


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
  column, row, _ = _project(camera, geom.pos)
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


def _stroke(color, depth, camera, window, geom, lights):
  # A round thing thinner than a ray's pixel, such as a string, is drawn by
  # the share of each pixel that it covers, or it would fall into dots.
  along = geom.mat.reshape(3, 3)[:, 2] * geom.size[2]
  if geom.type == int(_TYPES.mjGEOM_SPHERE):
    along = 0 * along
  start = _project(camera, geom.pos - along)
  run = _project(camera, geom.pos + along) - start
  rows, columns = (np.arange(one.start, one.stop) for one in window)
  across, down = np.meshgrid(columns - start[0], rows - start[1])
  length = max(float(run[:2] @ run[:2]), 1e-12)
  part = np.clip((across * run[0] + down * run[1]) / length, 0, 1)
  off = np.hypot(across - part * run[0], down - part * run[1])
  radius = _pixels(camera, geom.pos, geom.size[0])
  cover = np.minimum(off + radius, 0.5) - np.maximum(off - radius, -0.5)
  cover = np.clip(cover, 0, 1) * float(geom.rgba[3])
  rays = camera.rays[:, *window]
  away = np.einsum("i,ihw->hw", camera.frame[2], rays) * depth
  cover = np.where(start[2] + part * run[2] < away, cover, 0)
  view = camera.eye - geom.pos
  view = (view / np.linalg.norm(view)).astype(np.float32)[:, None]
  surface = _surface(geom, geom.pos[:, None], view, view)
  paint = shading.lit_color(lights, surface)[:, :, None]
  color += cover.astype(np.float32) * (paint - color)


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
