"""Finding out, in a process of its own, whether OpenGL works."""

import glob
import os
import subprocess
import sys

# Device files of GPUs; DXG is the one of Windows' Linux.
_DEVICES = ("/dev/nvidia[0-9]*", "/dev/dri/renderD*", "/dev/dxg")
# Prints what renders, after a frame has been drawn: a context that opens but
# cannot draw is no use.
_PROBE = """
import importlib, sys
import mujoco
model = mujoco.MjModel.from_xml_string(
    "<mujoco><worldbody><light pos='0 0 3'/><geom size='1'/>"
    "</worldbody></mujoco>")
data = mujoco.MjData(model)
mujoco.mj_forward(model, data)
module = importlib.import_module("mujoco." + sys.argv[1])
context = module.GLContext(16, 16)
context.make_current()
drawing = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_100)
from OpenGL import GL
print("renders with", GL.glGetString(GL.GL_RENDERER).decode())
sys.stdout.flush()
import os
os._exit(0)
"""


def has_gpu() -> bool:
  """Tells whether a GPU that could render is visible, without starting it."""
  return any(glob.glob(pattern) for pattern in _DEVICES)


def probe(backend: str, timeout: float = 60.0) -> str | None:
  """Tries an OpenGL backend in a process of its own.

  Args:
    backend: "egl" or "osmesa".
    timeout: in seconds; a driver that hangs counts as absent.

  Returns:
    What renders, as in "llvmpipe (LLVM 15.0.6, 256 bits)", or None where the
    backend does not work.
  """
  environment = {**os.environ, "MUJOCO_GL": "disable"}
  environment.pop("PYOPENGL_PLATFORM", None)
  try:
    done = subprocess.run(
      [sys.executable, "-c", _PROBE, backend],
      capture_output=True,
      text=True,
      timeout=timeout,
      env=environment,
    )
  except (OSError, subprocess.TimeoutExpired):
    return None
  for line in done.stdout.splitlines():
    if line.startswith("renders with "):
      return line.removeprefix("renders with ")
  return None
