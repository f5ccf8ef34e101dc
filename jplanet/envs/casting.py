"""Casting rays at a MuJoCo model, on its own and with a cheap test before."""

from typing import Any, NamedTuple

import mujoco
import numpy as np

# Geoms at least this many times longer than thick are covered by `_ROW` balls.
_LONG = 8
_ROW = 4


class Hits(NamedTuple):
  """What rays hit first.

  Attributes:
    geom: int32 `[n]`, -1 for none.
    distance: float32 `[n]`, in metres; means nothing where there is none.
    normal: float32 `[3, n]`, unit.
  """

  geom: np.ndarray
  distance: np.ndarray
  normal: np.ndarray


class Caster:
  """Casts bundles of rays that start at one point.

  Call `move` before the first bundle of a picture.
  Only geoms of the groups 0 to 2 stop rays, which are those that OpenGL draws.

  Attributes:
    solid: geoms other than planes, int `[G]`.
  """

  def __init__(self, model: mujoco.MjModel, data: mujoco.MjData, most: int):
    """Prepares buffers for at most `most` rays at a time."""
    self._model = model
    self._data = data
    self._groups = np.array(mujoco.MjvOption().geomgroup, np.uint8)
    shown = self._groups[np.minimum(model.geom_group, 5)] > 0
    plane = model.geom_type == int(mujoco.mjtGeom.mjGEOM_PLANE)
    self.solid = np.flatnonzero(shown & ~plane)
    self._planes = np.flatnonzero(shown & plane)
    self._geom = np.empty(most, np.int32)
    self._distance = np.empty(most)
    self._normal = np.empty(3 * most)
    self._cover()

  def cast(
    self, origin: np.ndarray, rays: np.ndarray, columns: np.ndarray
  ) -> Hits:
    """Finds what rays hit first, planes without MuJoCo.

    Args:
      origin: float64 `[3]`.
      rays: float64 `[n, 3]`, unit.
      columns: the same in float32, `[3, n]`.
    """
    geom = np.full(len(rays), -1, np.int32)
    # As exact as MuJoCo's until all planes have been compared.
    distance = np.full(len(rays), np.inf)
    normal = np.zeros((3, len(rays)), np.float32)
    for plane in self._planes:
      if self._visible(plane):
        met, far = self._meet(plane, origin, rays)
        met &= far < distance
        up = self._data.geom_xmat[plane].reshape(3, 3)[:, 2:]
        np.copyto(geom, plane, where=met)
        np.copyto(distance, far, where=met)
        np.copyto(normal, up, where=met, casting="same_kind")
    near = self.near(origin, columns)
    traced = self.trace(origin, rays.take(near, 0))
    geom[near] = traced.geom
    distance[near] = traced.distance
    normal[:, near] = traced.normal
    return Hits(geom, distance.astype(np.float32), normal)

  def _visible(self, geom: int) -> bool:
    """Says whether MuJoCo lets a geom stop rays: not with an alpha of 0."""
    model, material = self._model, self._model.geom_matid[geom]
    own = model.geom_rgba[geom, 3] != 0
    return bool(own or (material >= 0 and model.mat_rgba[material, 3] != 0))

  def _meet(self, plane, origin, rays):
    """Says, bool `[n]` and float64 `[n]`, which rays meet a plane, and where.

    By MuJoCo's rule: from in front, and within its size where it has one.
    """
    frame = self._data.geom_xmat[plane].reshape(3, 3)
    offset = origin - self._data.geom_xpos[plane]
    height, slope = offset @ frame[:, 2], rays @ frame[:, 2]
    met = (slope < -mujoco.mjMINVAL) & (height >= 0)
    distance = np.divide(-height, slope, where=met, out=np.zeros_like(slope))
    for axis in (0, 1):
      half = self._model.geom_size[plane, axis]
      if half > 0:
        across = frame[:, axis]
        met &= np.abs(offset @ across + distance * (rays @ across)) <= half
    return met, distance

  def trace(self, origin: np.ndarray, rays: np.ndarray) -> Hits:
    """Finds what rays hit first, all of it with MuJoCo.

    Args:
      origin: float64 `[3]`.
      rays: float64 `[n, 3]`, unit.
    """
    n = len(rays)
    geom, distance = self._geom[:n], self._distance[:n]
    normal = self._normal[: 3 * n]
    # MuJoCo skips bodies by a bounding volume that holds their colliding geoms
    # alone, so it misses others (the finger's); without one it skips none.
    volumes = self._model.body_bvhadr
    kept = volumes.copy()
    volumes[:] = -1
    try:
      mujoco.mj_multiRay(
        self._model,
        self._data,
        origin,
        rays.reshape(-1),
        self._groups,
        True,
        -1,
        geom,
        distance,
        normal,
        n,
        mujoco.mjMAXVAL,
      )
    finally:
      volumes[:] = kept
    normal = np.ascontiguousarray(normal.reshape(n, 3).T, np.float32)
    return Hits(geom.copy(), distance.astype(np.float32), normal)

  def move(self) -> None:
    """Takes the geoms from where they are now, once for every picture."""
    model, data, geom = self._model, self._data, self._ball_geom
    size = model.geom_size[geom]
    row = self._ball_count > 1
    half = np.where(row, size[:, 1], 0)
    # A task may change sizes after the bounding radius was computed.
    self._radius = np.where(
      row,
      half / self._ball_count + size[:, 0],
      np.maximum(model.geom_rbound[geom], size.sum(1)),
    )
    axis = data.geom_xmat[geom][:, 2::3]
    along = (half * self._ball_part)[:, None] * axis
    self._centre = data.geom_xpos[geom] + along

  def near(self, origin: np.ndarray, rays: np.ndarray) -> np.ndarray:
    """Finds the `rays [3, n]` that may hit a geom other than a plane.

    Several times cheaper than casting them. Returns their indices. The geoms
    are where they were at the last `move`.
    """
    offset = self._centre - origin
    square = (offset * offset).sum(1)
    # A ray from outside that touches a ball comes at least this far along to
    # its centre; from inside every ray may hit what it holds.
    spare = square - self._radius * self._radius
    reach = np.where(spare > 0, np.sqrt(np.maximum(spare, 0)), -np.inf)
    along = offset.astype(np.float32) @ rays
    return np.flatnonzero((along >= reach[:, None].astype(np.float32)).any(0))

  def _cover(self):
    model = self._model
    kinds = (
      int(mujoco.mjtGeom.mjGEOM_CAPSULE),
      int(mujoco.mjtGeom.mjGEOM_CYLINDER),
    )
    balls: list[Any] = []
    for geom in self.solid:
      long = model.geom_size[geom, 1] > _LONG * model.geom_size[geom, 0]
      count = _ROW if long and model.geom_type[geom] in kinds else 1
      # The centres of equal parts of [-1, 1].
      parts = (2 * np.arange(count) + 1) / count - 1
      balls += [(geom, part, count) for part in parts]
    table = np.array(balls, np.float64).reshape(-1, 3)
    self._ball_geom = table[:, 0].astype(np.int32)
    self._ball_part = table[:, 1]
    self._ball_count = table[:, 2]
    self.move()
