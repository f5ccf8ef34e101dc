"""Pixels by ray casting: no OpenGL, no GPU, no apt package."""

from typing import Any

import mujoco
import numpy as np

from jplanet.envs import shading
from jplanet.envs.casting import Caster
from jplanet.envs.overlays import Camera, draw_overlays, drawable
from jplanet.envs.textures import Textures

# From here a directional light casts its shadows: far enough that its rays are
# parallel over any scene of the suite, in metres.
_FAR = 1000.0
# A surface that the light meets this little before a point is the point's own,
# in metres.
_BIAS = 2e-3


class RayRenderer:
  """Renders by casting rays and shading them as MuJoCo's OpenGL does.

  It draws what OpenGL draws by default: geoms of the groups 0 to 2 with their
  colours, materials and flat textures, the sky, all lights with their shadows,
  the mirror image in a reflecting floor, sites and tendons. A geom thinner
  than the distance between rays can fall between them.

  Attributes:
    name: "ray".
    size: image side in pixels.
  """

  name = "ray"

  def __init__(
    self,
    physics: Any,
    *,
    size: int,
    camera: int = 0,
    supersample: int | None = None,
  ):
    """Prepares a camera.

    Args:
      physics: a dm_control `Physics`.
      size: image side in pixels.
      camera: index of a camera of the model; -1 is the free camera.
      supersample: rays per pixel along each axis; None takes 2 below 64 pixels
        and 1 from there on.

    Raises:
      ValueError: `supersample` is not a positive integer.
    """
    rate = (2 if size < 64 else 1) if supersample is None else supersample
    if rate != int(rate) or rate < 1:
      raise ValueError(
        f"supersample must be a positive integer, got {supersample!r}"
      )
    self.size = size
    self._rate = rate
    self._side = size * rate
    self._model = model = physics.model.ptr
    self._data = physics.data.ptr
    self._view = mujoco.MjvCamera()
    if camera < 0:
      mujoco.mjv_defaultFreeCamera(model, self._view)
    else:
      self._view.type = mujoco.mjtCamera.mjCAMERA_FIXED
      self._view.fixedcamid = camera
    # Lights, sites and tendons come from MuJoCo's own scene; geoms are left
    # out of it, because the rays find them.
    self._scene = mujoco.MjvScene(model, maxgeom=1000)
    self._option = mujoco.MjvOption()
    taken = set(model.geom_group.tolist())
    self._spare = next((g for g in (5, 4, 3) if g not in taken), None)
    self._option.geomgroup[:] = 0
    if self._spare is not None:
      self._option.geomgroup[self._spare] = 1
    self._textures = Textures(model)
    self._caster = Caster(model, self._data, self._side**2)
    self._materials = shading.MaterialReader(model)
    self._pose = None

  def render(self) -> np.ndarray:
    """Returns the camera's view, uint8 `[S, S, 3]`."""
    materials = self._materials.read()
    glass = self._caster.solid[materials.alpha[self._caster.solid] < 0.995]
    if self._spare is None or not glass.size:
      return self._draw(materials)
    # What one can see through is drawn over what the rays find, so it moves to
    # a group of its own until the picture is taken.
    kinds, groups = self._model.geom_type, self._model.geom_group
    kept = groups.copy()
    groups[[geom for geom in glass if drawable(kinds[geom])]] = self._spare
    try:
      return self._draw(materials)
    finally:
      groups[:] = kept

  def close(self) -> None:
    """Does nothing: there is nothing to free."""

  def _draw(self, materials):
    mujoco.mjv_updateScene(
      self._model,
      self._data,
      self._option,
      None,
      self._view,
      mujoco.mjtCatBit.mjCAT_ALL,
      self._scene,
    )
    self._aim()
    self._caster.move()
    lights = shading.read_lights(self._scene)
    geom, depth, normal = self._caster.cast(self._eye, self._bundle, self._rays)
    hit = np.flatnonzero(geom >= 0)
    color = self._sky.copy()
    color[:, hit] = self._shade(
      geom.take(hit),
      depth.take(hit),
      normal.take(hit, 1),
      self._rays.take(hit, 1),
      lights,
      materials,
    )
    side, rate, size = self._side, self._rate, self.size
    color = color.reshape(3, side, side)
    if self._scene.ngeom:
      depth[geom < 0] = np.inf
      camera = Camera(
        self._eye, self._frame, self._half, self._rays.reshape(3, side, side)
      )
      geoms = self._scene.geoms[: self._scene.ngeom]
      draw_overlays(color, depth.reshape(side, side), camera, geoms, lights)
    if rate > 1:
      color = color.reshape(3, size, rate, size, rate).mean((2, 4))
    color = np.minimum(color, 1) * 255 + 0.5
    return np.ascontiguousarray(color.astype(np.uint8).transpose(1, 2, 0))

  def _aim(self):
    left, right = self._scene.camera
    # A scene holds two eyes; a flat picture is taken from between them.
    self._eye = (left.pos.astype(np.float64) + right.pos) / 2
    pose = np.concatenate(
      [left.forward, left.up, [left.frustum_top / left.frustum_near]]
    )
    if self._pose is not None and np.array_equal(pose, self._pose):
      return
    # Most cameras only move, so that rays and sky can be kept.
    self._pose = pose
    forward, up = left.forward.astype(np.float64), left.up.astype(np.float64)
    right = np.cross(forward, up)
    self._frame = np.stack([right, up, forward])
    self._half = float(pose[-1])
    axis = ((np.arange(self._side) + 0.5) / self._side * 2 - 1) * self._half
    rays = (forward + axis[None, :, None] * right) - axis[:, None, None] * up
    rays = rays.reshape(-1, 3)
    self._bundle = rays / np.linalg.norm(rays, axis=1, keepdims=True)
    self._rays = np.ascontiguousarray(self._bundle.T, np.float32)
    self._sky = self._textures.sky(self._rays)

  def _surface(self, geom, point, normal, rays, materials):
    return shading.Surface(
      point=point,
      normal=normal,
      view=-rays,
      color=materials.color.take(geom, 1),
      specular=materials.specular.take(geom),
      shininess=materials.shininess.take(geom),
      emission=materials.emission.take(geom),
    )

  def _shade(self, geom, depth, normal, rays, lights, materials):
    point = self._eye.astype(np.float32)[:, None] + depth * rays
    surface = self._surface(geom, point, normal, rays, materials)
    color = shading.lit_color([x for x in lights if not x.shadow], surface)
    for light in lights:
      if light.shadow:
        color += self._with_shadow(light, surface)
    self._paint(color, geom, point, depth, normal, rays)
    mirrors = np.flatnonzero(materials.reflectance > 0)
    if mirrors.size:
      self._reflect(color, mirrors[0], geom, rays, lights, materials)
    return color

  def _with_shadow(self, light, surface):
    diffuse, gloss = shading.strength(light, surface)
    origin = light.position.astype(np.float64)
    if light.directional:
      origin = origin - _FAR * light.direction
    lit = np.flatnonzero(diffuse + gloss > 1e-3)
    rays = surface.point.take(lit, 1) - origin[:, None]
    length = np.sqrt(shading.dot(rays, rays))
    rays /= length
    near = self._caster.near(origin, rays.astype(np.float32))
    if near.size:
      bundle = np.ascontiguousarray(rays.take(near, 1).T)
      geom, distance, _ = self._caster.trace(origin, bundle)
      dark = (geom >= 0) & (distance < length.take(near) - _BIAS)
      dark = lit.take(near[dark])
      diffuse[dark] = 0
      gloss[dark] = 0
    color = light.ambient[:, None] + diffuse * light.diffuse[:, None]
    color *= surface.color
    color += gloss * light.specular[:, None]
    return np.clip(color, 0, 1, out=color)

  def _paint(self, color, geom, point, depth, normal, rays):
    means = self._textures.means
    if means is not None:
      color *= means.take(geom, 1)
    for one in self._textures.textured:
      here = np.flatnonzero(geom == one)
      if not here.size:
        continue
      frame = self._data.geom_xmat[one].reshape(3, 3)[:, :2].T
      centre = self._data.geom_xpos[one].astype(np.float32)[:, None]
      local = frame.astype(np.float32) @ (point.take(here, 1) - centre)
      slant = np.abs(shading.dot(normal.take(here, 1), rays.take(here, 1)))
      pixel = 2 * self._half / self._side
      footprint = depth.take(here) * pixel / np.maximum(slant, 1e-3)
      color[:, here] *= self._textures.flat(one, local, footprint)

  def _reflect(self, color, mirror, geom, rays, lights, materials):
    here = np.flatnonzero(geom == mirror)
    up = self._data.geom_xmat[mirror].reshape(3, 3)[:, 2]
    height = (self._eye - self._data.geom_xpos[mirror]) @ up
    # Seen from the mirror image of the eye the reflected rays are one bundle,
    # and a plane stops no ray from behind.
    origin = self._eye - 2 * height * up
    bent = rays.take(here, 1)
    bent = bent - (2 * up.astype(np.float32) @ bent) * up[:, None]
    near = self._caster.near(origin, bent.astype(np.float32))
    bent = bent.take(near, 1)
    other, distance, normal = self._caster.trace(
      origin, np.ascontiguousarray(bent.T)
    )
    hit = np.flatnonzero(other >= 0)
    if not hit.size:
      return
    bent = bent.take(hit, 1).astype(np.float32)
    place = origin.astype(np.float32)[:, None] + distance.take(hit) * bent
    surface = self._surface(
      other.take(hit), place, normal.take(hit, 1), bent, materials
    )
    dim = surface.color * materials.reflectance[mirror]
    surface = surface._replace(color=dim)
    color[:, here[near[hit]]] += shading.lit_color(lights, surface)
