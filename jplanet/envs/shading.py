"""Light and colour of the ray caster: OpenGL's fixed lighting, per sample.

Vectors lie along the first axis, `[3, n]`, because numpy is several times
faster over a long last axis than over one of length 3.
"""

from typing import NamedTuple

import mujoco
import numpy as np

_DEFAULT_RGBA = (0.5, 0.5, 0.5, 1.0)


class Surface(NamedTuple):
  """Samples on surfaces.

  Attributes:
    point: float32 `[3, n]`, in the world, in metres.
    normal: float32 `[3, n]`, unit.
    view: float32 `[3, n]`, unit, towards the viewer.
    color: float32 `[3, n]` in [0, 1].
    specular: float32 `[n]`.
    shininess: float32 `[n]`, OpenGL's exponent, in [0, 128].
    emission: float32 `[n]`.
  """

  point: np.ndarray
  normal: np.ndarray
  view: np.ndarray
  color: np.ndarray
  specular: np.ndarray
  shininess: np.ndarray
  emission: np.ndarray


class Materials(NamedTuple):
  """What a model's geoms are made of, one row a geom.

  Attributes:
    color: float32 `[3, G]`.
    alpha: float32 `[G]`.
    specular: float32 `[G]`.
    shininess: float32 `[G]`, OpenGL's exponent.
    emission: float32 `[G]`.
    reflectance: float32 `[G]`.
  """

  color: np.ndarray
  alpha: np.ndarray
  specular: np.ndarray
  shininess: np.ndarray
  emission: np.ndarray
  reflectance: np.ndarray


class MaterialReader:
  """Reads the materials as they are now: tasks repaint their geoms."""

  def __init__(self, model: mujoco.MjModel):
    self._model = model
    self._seen = self._materials = None

  def read(self) -> Materials:
    model = self._model
    arrays = (
      model.geom_rgba,
      model.geom_matid,
      model.mat_rgba,
      model.mat_specular,
      model.mat_shininess,
      model.mat_emission,
      model.mat_reflectance,
    )
    # To compare them is much less work.
    seen = [x.tobytes() for x in arrays]
    if seen != self._seen:
      self._seen, self._materials = seen, read_materials(model)
    return self._materials


def read_materials(model: mujoco.MjModel) -> Materials:
  """Reads what the geoms of a model are made of."""
  rgba = model.geom_rgba.copy()
  material = model.geom_matid
  has = material >= 0
  # A geom's own colour wins over its material's, unless it is the default one.
  paint = has & (rgba == _DEFAULT_RGBA).all(1)
  rgba[paint] = model.mat_rgba[material[paint]]

  def column(values, default):
    filled = np.full(model.ngeom, default, np.float32)
    filled[has] = values[material[has]]
    return filled

  return Materials(
    color=np.ascontiguousarray(rgba.T[:3], np.float32),
    alpha=rgba[:, 3].astype(np.float32),
    specular=column(model.mat_specular, 0.5),
    shininess=column(model.mat_shininess, 0.5) * 128,
    emission=column(model.mat_emission, 0.0),
    reflectance=column(model.mat_reflectance, 0.0),
  )


class Light(NamedTuple):
  """A light of the scene; directions are unit, colours `[3]`."""

  directional: bool
  shadow: bool
  position: np.ndarray
  direction: np.ndarray
  ambient: np.ndarray
  diffuse: np.ndarray
  specular: np.ndarray
  attenuation: np.ndarray
  exponent: float
  cutoff: float


def read_lights(scene: mujoco.MjvScene) -> list[Light]:
  """Reads the lights of a scene, the headlight among them."""
  directional = int(mujoco.mjtLightType.mjLIGHT_DIRECTIONAL)
  return [
    Light(
      directional=int(light.type) == directional,
      shadow=bool(light.castshadow),
      position=light.pos,
      direction=light.dir,
      ambient=light.ambient,
      diffuse=light.diffuse,
      specular=light.specular,
      attenuation=light.attenuation,
      exponent=float(light.exponent),
      cutoff=float(light.cutoff),
    )
    for light in scene.lights[: scene.nlight]
  ]


def dot(a: np.ndarray, b: np.ndarray) -> np.ndarray:
  """Returns the scalar products `[n]` of vectors `[3, n]`."""
  return np.einsum("in,in->n", a, b)


def strength(light: Light, surface: Surface) -> tuple[np.ndarray, np.ndarray]:
  """Computes how much of a light reaches and leaves surfaces.

  Returns:
    The diffuse factor `[n]` (the cosine of the angle of incidence) and the
    specular one `[n]` (Blinn's), both with the light's attenuation and cone.
  """
  normal, view = surface.normal, surface.view
  reach = None
  if light.directional:
    towards = -light.direction
    incidence = towards @ normal
    facing = towards @ view
  else:
    towards = light.position[:, None] - surface.point
    distance = np.sqrt(dot(towards, towards))
    towards /= distance
    incidence = dot(normal, towards)
    facing = dot(view, towards)
    constant, linear, square = light.attenuation.tolist()
    reach = 1 / (constant + distance * (linear + square * distance))
    if light.cutoff < 180:
      angle = -light.direction @ towards
      inside = angle >= np.cos(np.deg2rad(light.cutoff))
      reach *= np.where(inside, _power(angle, light.exponent), 0)
  # The half vector is l + v over its length, so no vector need be built.
  half = incidence + dot(normal, view)
  half /= np.sqrt(np.maximum(2 + 2 * facing, 1e-6))
  gloss = _power(half, surface.shininess) * surface.specular
  gloss *= incidence > 0
  diffuse = np.maximum(incidence, 0)
  if reach is not None:
    diffuse *= reach
    gloss *= reach
  return diffuse, gloss


def lit_color(lights: list[Light], surface: Surface) -> np.ndarray:
  """Computes the colour `[3, n]` of surfaces under several lights at once.

  Clipped to [0, 1], as OpenGL does after each of its passes.
  """
  factor = np.repeat(surface.emission[None], 3, 0)
  shine = np.zeros_like(factor)
  for light in lights:
    diffuse, gloss = strength(light, surface)
    factor += light.ambient[:, None] + diffuse * light.diffuse[:, None]
    shine += gloss * light.specular[:, None]
  factor *= surface.color
  factor += shine
  return np.clip(factor, 0, 1, out=factor)


def _power(base, exponent):
  # Six times faster than `**`, whose last bits no picture shows.
  return np.exp(exponent * np.log(np.maximum(base, 1e-9)))
