"""The choice of a renderer, OpenGL, and what an environment must not load."""

import os
import subprocess
import sys

import pytest

from jplanet.envs import make_env, renderers


def fake_gl(monkeypatch, answers, gpu=True):
  monkeypatch.setattr(renderers, "has_gpu", lambda: gpu)
  monkeypatch.setattr(renderers, "_probe", answers.get)
  monkeypatch.delenv("MUJOCO_GL", raising=False)


def test_auto_takes_opengl_only_where_a_gpu_renders(monkeypatch):
  fake_gl(monkeypatch, {"egl": "NVIDIA H200/PCIe/SSE2"})
  assert renderers.choose("auto") == "gl:egl"
  fake_gl(monkeypatch, {"egl": "llvmpipe (LLVM 15.0.6, 256 bits)"})
  assert renderers.choose("auto") == "ray"
  assert renderers.choose("gl") == "gl:egl"
  fake_gl(monkeypatch, {"egl": "NVIDIA H200/PCIe/SSE2"}, gpu=False)
  assert renderers.choose("auto") == "ray"
  fake_gl(monkeypatch, {"osmesa": "softpipe"})
  assert renderers.choose("gl") == "gl:osmesa"


def test_the_users_mujoco_gl_is_obeyed(monkeypatch):
  fake_gl(monkeypatch, {"egl": "NVIDIA", "osmesa": "llvmpipe"})
  monkeypatch.setenv("MUJOCO_GL", "osmesa")
  assert renderers.choose("gl") == "gl:osmesa"
  assert renderers.choose("auto") == "ray"
  assert os.environ["MUJOCO_GL"] == "osmesa"


def test_no_opengl_says_what_was_tried_and_what_helps(monkeypatch):
  fake_gl(monkeypatch, {})
  with pytest.raises(RuntimeError) as caught:
    make_env("cartpole_swingup", renderer="gl")
  message = str(caught.value)
  for part in ("egl and osmesa", "MUJOCO_GL", "apt-get install", "'ray'"):
    assert part in message
  assert "\n" not in message


def run(program, **environment):
  return subprocess.run(
    [sys.executable, "-c", program],
    capture_output=True,
    text=True,
    env={**os.environ, **environment},
    timeout=120,
  )


@pytest.mark.parametrize(
  "renderer, kind, words",
  [
    ("gl", "RuntimeError", "none works here: tried osmesa"),
    ("ray", "ImportError", "MUJOCO_GL='osmesa' names an OpenGL that does not"),
    ("auto", "ImportError", "set it to 'disable' and use renderer='ray'"),
  ],
)
def test_a_mujoco_gl_that_does_not_load_is_one_line(
  renderer, kind, words, tmp_path
):
  """dm_control loads what MUJOCO_GL names, wanted or not."""
  stub = tmp_path / "OpenGL"
  stub.mkdir()
  # The rest of PyOpenGL stays what it is.
  (stub / "__init__.py").write_text(
    "import pkgutil; __path__ = pkgutil.extend_path(__path__, __name__)"
  )
  # What PyOpenGL says where the library is missing.
  (stub / "osmesa.py").write_text(
    "raise AttributeError(\"'NoneType' object has no attribute 'glGetError'\")"
  )
  done = run(
    "from jplanet.envs import make_env\n"
    "try:\n"
    f"  make_env('cartpole_swingup', renderer='{renderer}', size=8)\n"
    "except Exception as error:\n"
    "  print(type(error).__name__, error)",
    MUJOCO_GL="osmesa",
    PYTHONPATH=str(tmp_path),
  )
  (line,) = done.stdout.splitlines()
  assert line.startswith(kind) and words in line, done.stderr


def test_environments_never_load_jax():
  done = run(
    "import sys; from jplanet.envs import make_env\n"
    "make_env('cartpole_swingup', renderer='ray').reset()\n"
    "assert 'jax' not in sys.modules and 'flax' not in sys.modules"
  )
  assert done.returncode == 0, done.stderr
  assert "GLFWError" not in done.stderr


def test_opengl_gives_the_papers_pixels():
  if renderers._probe("egl") is None:
    pytest.skip("no EGL on this machine")
  # dm_control's renderer needs MUJOCO_GL before its import.
  done = run(
    "import numpy as np; from jplanet.envs import make_env\n"
    "env = make_env('cartpole_swingup', renderer='gl', seed=1)\n"
    "ours = env.reset().observation\n"
    "theirs = env.physics.render(64, 64, camera_id=0)\n"
    "assert np.array_equal(ours, theirs), np.abs(ours - 1.0 * theirs).max()\n"
    "assert env.renderer == 'gl:egl'\n"
    "del env",
    MUJOCO_GL="egl",
  )
  assert done.returncode == 0, done.stderr
