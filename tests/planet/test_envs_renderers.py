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
