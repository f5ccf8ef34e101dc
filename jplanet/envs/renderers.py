"""The choice between the two renderers."""

import functools
import os
from typing import Any, Protocol

import numpy as np

from jplanet.envs.probe import has_gpu, probe

_BACKENDS = ("egl", "osmesa")
# These draw on the CPU, about twenty times slower than ray casting.
_SOFTWARE = ("llvmpipe", "softpipe", "swrast", "software")


class Renderer(Protocol):
  """What an environment needs of a renderer.

  Attributes:
    name: what is written next to a score.
    size: image side in pixels.
  """

  name: str
  size: int

  def render(self) -> np.ndarray:
    """Returns the current view, uint8 `[S, S, 3]`."""

  def close(self) -> None:
    """Frees what the renderer holds."""


def choose(renderer: str = "auto") -> str:
  """Decides what will render, and finds out whether it can.

  OpenGL is tried in a process of its own, once per backend. Where `MUJOCO_GL`
  is set, only the backend that it names is tried.

  Args:
    renderer: "ray", "gl" or "auto"; also "gl:egl" and "gl:osmesa".

  Returns:
    "ray", "gl:egl" or "gl:osmesa".

  Raises:
    ValueError: another name.
    RuntimeError: OpenGL was asked for and does not work here.
  """
  if renderer == "ray":
    return "ray"
  if renderer == "auto":
    if not has_gpu():
      return "ray"
    for backend in _candidates():
      what = _probe(backend)
      if what and not any(word in what.lower() for word in _SOFTWARE):
        return f"gl:{backend}"
    return "ray"
  if renderer == "gl":
    backends = _candidates()
  elif renderer in ("gl:egl", "gl:osmesa"):
    backends = (renderer.removeprefix("gl:"),)
  else:
    raise ValueError(
      f"renderer must be 'auto', 'ray' or 'gl', got {renderer!r}"
    )
  for backend in backends:
    if _probe(backend):
      return f"gl:{backend}"
  value = os.environ.get("MUJOCO_GL")
  raise RuntimeError(
    f"renderer='gl' needs OpenGL, and none works here: tried "
    f"{' and '.join(backends) or 'nothing'} (MUJOCO_GL is "
    f"{'not set' if value is None else repr(value)}, it may be 'egl' or "
    "'osmesa'); run apt-get install -y libegl1 libgl1 libgl1-mesa-dri, or "
    "libosmesa6 for osmesa, or use renderer='ray'"
  )


def build(
  name: str,
  physics: Any,
  *,
  size: int,
  camera: int = 0,
  supersample: int | None = None,
) -> Renderer:
  """Builds the renderer that `choose` named for one simulation."""
  if name == "ray":
    from jplanet.envs.ray import RayRenderer

    return RayRenderer(
      physics, size=size, camera=camera, supersample=supersample
    )
  from jplanet.envs.gl import GLRenderer

  return GLRenderer(name.removeprefix("gl:"), physics, size=size, camera=camera)


def _candidates():
  value = os.environ.get("MUJOCO_GL", "").strip().lower()
  if not value:
    return _BACKENDS
  return tuple(backend for backend in _BACKENDS if backend == value)


_probe = functools.cache(probe)
