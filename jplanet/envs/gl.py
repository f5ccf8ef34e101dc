"""Pixels by OpenGL: MuJoCo's own renderer, the pixels of the paper."""

import atexit
import weakref
from typing import Any

import mujoco
import numpy as np

# Contexts must be freed before the interpreter takes their library away.
_open: weakref.WeakSet = weakref.WeakSet()


class GLRenderer:
  """Renders with MuJoCo's OpenGL pipeline in a context of its own.

  The context belongs to the thread that first renders. It does not go through
  dm_control, whose choice of OpenGL is fixed when it is imported.

  Attributes:
    name: "gl:egl" or "gl:osmesa".
    size: image side in pixels.
  """

  def __init__(self, backend: str, physics: Any, *, size: int, camera: int = 0):
    self.name = f"gl:{backend}"
    self.size = size
    self._backend = backend
    self._model = physics.model.ptr
    self._data = physics.data.ptr
    # The frame buffer of the size drawn gives the same bits and is faster.
    self._model.vis.global_.offwidth = size
    self._model.vis.global_.offheight = size
    self._scene = mujoco.MjvScene(self._model, maxgeom=2000)
    self._option = mujoco.MjvOption()
    self._view = mujoco.MjvCamera()
    if camera < 0:
      mujoco.mjv_defaultFreeCamera(self._model, self._view)
    else:
      self._view.type = mujoco.mjtCamera.mjCAMERA_FIXED
      self._view.fixedcamid = camera
    self._rect = mujoco.MjrRect(0, 0, size, size)
    self._context = self._drawing = None

  def render(self) -> np.ndarray:
    """Returns the camera's view, uint8 `[S, S, 3]`."""
    if self._context is None:
      self._open()
    # Several environments in one thread take turns.
    self._context.make_current()
    mujoco.mjv_updateScene(
      self._model,
      self._data,
      self._option,
      None,
      self._view,
      mujoco.mjtCatBit.mjCAT_ALL,
      self._scene,
    )
    image = np.empty((self.size, self.size, 3), np.uint8)
    mujoco.mjr_render(self._rect, self._scene, self._drawing)
    mujoco.mjr_readPixels(image, None, self._rect, self._drawing)
    # OpenGL counts rows from the bottom.
    return np.ascontiguousarray(image[::-1])

  def close(self) -> None:
    """Frees the context; a later `render` opens another."""
    if self._context is not None:
      self._context.make_current()
      self._drawing.free()
      self._context.free()
      self._context = self._drawing = None

  def _open(self):
    if self._backend == "egl":
      from mujoco.egl import GLContext
    else:
      from mujoco.osmesa import GLContext
    self._context = GLContext(self.size, self.size)
    self._context.make_current()
    if not _open:
      # After the import above, so that it runs before EGL's own exit.
      atexit.register(_close_all)
    _open.add(self)
    scale = mujoco.mjtFontScale.mjFONTSCALE_100
    self._drawing = mujoco.MjrContext(self._model, scale)
    mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, self._drawing)


def _close_all():
  for renderer in list(_open):
    renderer.close()
