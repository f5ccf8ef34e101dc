"""Textures of the ray caster: floors, and the sky."""

import mujoco
import numpy as np

# Which coordinate is a cube face's axis and its sign, then the coordinates and
# signs that run along its columns and rows (OpenGL 4.6, table 8.19), in the
# order of MuJoCo's faces: right, left, up, down, front, back.
_FACES = (
  (0, 1, 2, -1, 1, -1),
  (0, -1, 2, 1, 1, -1),
  (1, 1, 0, 1, 2, 1),
  (1, -1, 0, 1, 2, -1),
  (2, 1, 0, 1, 1, -1),
  (2, -1, 0, -1, 1, -1),
)
_SKY_SIDE = 128


class Textures:
  """The textures of a model, ready to be looked up.

  Attributes:
    textured: geoms that wear a flat texture.
    means: `[3, G]`, the mean colour of other textures, one for geoms without
      any; None where no geom has one.
  """

  def __init__(self, model: mujoco.MjModel):
    self._images = [_image(model, i) for i in range(model.ntex)]
    # Smaller copies, so that a distant floor is the mean of its squares.
    self._means = [image.mean((0, 1)) for image in self._images]
    role = int(mujoco.mjtTextureRole.mjTEXROLE_RGB)
    material = np.asarray(model.geom_matid)
    self._texture = np.full(model.ngeom, -1)
    has = material >= 0
    self._texture[has] = model.mat_texid[material[has], role]
    flat = int(mujoco.mjtTexture.mjTEXTURE_2D)
    # Textures on meshes follow coordinates of their own: they get their mean.
    plain = np.asarray(model.geom_type) != int(mujoco.mjtGeom.mjGEOM_MESH)
    self.textured = [
      geom
      for geom in np.flatnonzero(self._texture >= 0)
      if plain[geom] and model.tex_type[self._texture[geom]] == flat
    ]
    others = np.setdiff1d(np.flatnonzero(self._texture >= 0), self.textured)
    self.means = np.ones((3, model.ngeom), np.float32) if others.size else None
    for geom in others:
      self.means[:, geom] = self._means[self._texture[geom]]
    self._scale, self._offset, self._flat = {}, {}, {}
    for geom in self.textured:
      scale = 0.5 * model.mat_texrepeat[material[geom]]
      size = model.geom_size[geom, :2]
      if not model.mat_texuniform[material[geom]]:
        scale = scale / np.where(size > 0, size, 1)
      self._scale[geom] = scale.astype(np.float32)
      # OpenGL counts from the corner of a plane, and from half a texture off
      # the centre where the plane has no corner.
      self._offset[geom] = np.where(size > 0, scale * size, -0.5)
      flat_image = self._images[self._texture[geom]].reshape(-1, 3)
      self._flat[geom] = np.ascontiguousarray(flat_image.T)
    sky = int(mujoco.mjtTexture.mjTEXTURE_SKYBOX)
    skies = np.flatnonzero(np.asarray(model.tex_type) == sky)
    self._sky = _cube(self._images[skies[0]]) if skies.size else None

  def flat(
    self, geom: int, local: np.ndarray, footprint: np.ndarray
  ) -> np.ndarray:
    """Looks up the flat texture of a geom.

    Args:
      geom: one of `textured`.
      local: `[2, n]`, positions in the geom's frame, in metres.
      footprint: `[n]`, extent of a sample on the surface, in metres.

    Returns:
      Colours `[3, n]` in [0, 1].
    """
    image = self._images[self._texture[geom]]
    height, width = image.shape[:2]
    scale, offset = self._scale[geom], self._offset[geom]
    s = local[0] * scale[0] + offset[0]
    t = local[1] * -scale[1] + offset[1]
    column = ((s - np.floor(s)) * width).astype(np.int32)
    row = ((t - np.floor(t)) * height).astype(np.int32)
    np.minimum(column, width - 1, out=column)
    np.minimum(row, height - 1, out=row)
    color = self._flat[geom].take(row * width + column, 1)
    # A sample that covers a good part of the texture sees its mean.
    blur = np.clip(footprint * (scale.max() * 2) - 0.5, 0, 1)
    return color + blur * (self._means[self._texture[geom]][:, None] - color)

  def sky(self, rays: np.ndarray) -> np.ndarray:
    """Returns the colours `[3, n]` of the sky along `rays [3, n]`."""
    if self._sky is None:
      return np.zeros((3, rays.shape[1]), np.float32)
    # The sky is a cube whose vertical axis is its second one.
    cube = rays.T[:, [0, 2, 1]] * np.array([1, 1, -1])
    axis = np.abs(cube).argmax(1)
    face = 2 * axis + (np.take_along_axis(cube, axis[:, None], 1)[:, 0] < 0)
    table = np.array(_FACES)[face]
    rows = np.arange(len(cube))
    major = np.abs(cube[rows, axis])
    side = self._sky.shape[1]

    def index(coordinate, sign):
      place = (cube[rows, coordinate] * sign / major + 1) / 2 * side
      return np.clip(place.astype(np.int32), 0, side - 1)

    column = index(table[:, 2], table[:, 3])
    row = index(table[:, 4], table[:, 5])
    return np.ascontiguousarray(self._sky[face, row, column].T)


def _image(model, texture):
  height, width = model.tex_height[texture], model.tex_width[texture]
  channels = model.tex_nchannel[texture]
  start = model.tex_adr[texture]
  data = model.tex_data[start : start + height * width * channels]
  image = data.reshape(height, width, channels)[:, :, :3]
  image = np.broadcast_to(image, (height, width, 3))
  return image.astype(np.float32) / 255


def _cube(image):
  """Splits the faces of a cube and shrinks them: `[6, side, side, 3]`."""
  side = image.shape[1]
  faces = image.reshape(-1, side, side, 3)
  # MuJoCo stores one face where all six are alike.
  faces = np.broadcast_to(faces, (6, side, side, 3))
  factor = max(1, side // _SKY_SIDE)
  small = side // factor
  faces = faces[:, : small * factor, : small * factor]
  faces = faces.reshape(6, small, factor, small, factor, 3).mean((2, 4))
  return np.ascontiguousarray(faces)
