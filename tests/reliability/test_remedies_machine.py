"""Remedies switched off: disks, clocks, folders and programs beside a run."""

import contextlib
import errno
import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from jlejepa.runtime import metrics, run_folder, stop
from jlejepa.runtime.checkpoint import CheckpointError, Checkpoints
from jlejepa.runtime.errors import UserError
from jlejepa.runtime.metrics import MetricsWriter, read_metrics
from jlejepa.runtime.run_folder import resolve
from jlejepa.runtime.stop import StopSignal
from jplanet import train, video
from jplanet.video import write_video


class Never(Exception):
  """Takes the place of an exception whose handler is switched off."""


def test_fault_19_a_full_disk_would_be_a_traceback(
  toy_fit, tmp_path, limit_files
):
  """Remedy: what the disk refuses becomes one line."""
  fill = lambda row: limit_files(1)
  with pytest.MonkeyPatch.context() as off:
    off.setattr(train, "explain_disk_errors", contextlib.nullcontext)
    with pytest.raises(OSError) as error:
      toy_fit(tmp_path / "off", callback=fill)
  limit_files(None)
  assert error.value.errno == errno.EFBIG
  with pytest.raises(UserError, match="make room"):
    toy_fit(tmp_path / "on", callback=fill)


def test_fault_19_a_full_disk_would_cost_the_rows(
  tmp_path, limit_files, monkeypatch
):
  """Remedy: a file is replaced when its successor is whole."""

  def resume():
    with MetricsWriter(tmp_path, tensorboard=False) as writer:
      for step in range(100):
        writer.write({"step": step})
      limit_files(50)
      with pytest.raises(OSError):
        writer.truncate_after("step", 90)
    limit_files(None)
    return len(read_metrics(tmp_path))

  assert resume() == 100
  monkeypatch.setattr(metrics, "atomic_write_text", Path.write_text)
  assert resume() < 10


def test_fault_24_no_opengl_would_be_found_out_at_the_first_picture(tmp_path):
  """Remedy: OpenGL is tried before anything starts."""
  stub = tmp_path / "OpenGL"
  stub.mkdir()
  # What PyOpenGL says where the library is missing.
  reason = "'NoneType' object has no attribute 'glGetError'"
  (stub / "__init__.py").write_text(f'raise AttributeError("{reason}")')
  code = (
    "from jplanet.envs import make_env, renderers\n"
    "renderers._probe = lambda backend: 'a driver'\n"
    "env = make_env('cartpole_swingup', renderer='gl', size=8)\n"
    "print('made', flush=True)\n"
    "env.reset()"
  )
  done = subprocess.run(
    [sys.executable, "-c", code],
    capture_output=True,
    text=True,
    timeout=120,
    env={**os.environ, "MUJOCO_GL": "", "PYTHONPATH": str(tmp_path)},
  )
  assert done.returncode == 1 and done.stdout == "made\n"
  assert "Traceback" in done.stderr and reason in done.stderr


def test_fault_26_tensorboard_would_end_the_run(tmp_path, monkeypatch):
  """Remedy: whatever it raises becomes one warning."""
  monkeypatch.setitem(sys.modules, "tensorboardX", None)
  with MetricsWriter(tmp_path) as writer:
    with pytest.MonkeyPatch.context() as off:
      off.setattr(metrics, "Exception", Never, raising=False)
      with pytest.raises(ImportError):
        writer.write({"step": 1})
    with pytest.warns(UserWarning, match="no TensorBoard files"):
      writer.write({"step": 2})


def test_fault_27_without_ffmpeg_there_would_be_no_video(tmp_path, monkeypatch):
  """Remedy: what cannot be an mp4 becomes a GIF."""
  pytest.importorskip("imageio_ffmpeg")
  monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", "/nonexistent/ffmpeg")
  frames = np.zeros((2, 8, 8, 3), np.uint8)
  with pytest.MonkeyPatch.context() as off:
    off.setattr(video, "OSError", Never, raising=False)
    with pytest.raises(FileNotFoundError):
      write_video(tmp_path / "a.mp4", frames)
  assert not list(tmp_path.iterdir())
  assert write_video(tmp_path / "a.mp4", frames).suffix == ".gif"


def test_fault_29_a_clock_that_is_set_would_end_the_run(monkeypatch):
  """Remedy: time is measured by a clock that nobody sets."""
  now = [1.7e9]
  monkeypatch.setattr(time, "time", lambda: now[0])

  def stops():
    signal = StopSignal(max_minutes=60)
    now[0] += 365 * 86_400
    return signal.requested

  with pytest.MonkeyPatch.context() as off:
    off.setattr(stop, "time", SimpleNamespace(monotonic=lambda: time.time()))
    assert stops()
  assert not stops()


def test_fault_29_a_tilde_would_be_a_folder_of_that_name(tmp_path, monkeypatch):
  """Remedy: it is replaced before the path is made absolute."""
  monkeypatch.chdir(tmp_path)
  monkeypatch.setenv("HOME", str(tmp_path / "home"))
  with pytest.MonkeyPatch.context() as off:
    off.setattr(Path, "expanduser", lambda self: self)
    assert resolve("~/run") == tmp_path / "~" / "run"
  assert resolve("~/run") == tmp_path / "home" / "run"


def test_fault_29_orbax_would_refuse_a_relative_path(tmp_path, monkeypatch):
  """Remedy: checkpoints know their folder by its absolute path."""
  monkeypatch.chdir(tmp_path)
  with pytest.MonkeyPatch.context() as off:
    off.setattr(Path, "absolute", lambda self: self)
    without = Checkpoints("run")
  with pytest.raises(CheckpointError, match="absolute"):
    without.save(1, {"w": np.ones(2)})
  Checkpoints("run").save(1, {"w": np.ones(2)})


def test_fault_29_a_line_break_in_a_name_would_break_the_line(tmp_path):
  """Remedy: an error joins what foreign texts bring into it."""
  (tmp_path / "a\nb").write_text("a file")

  def text():
    with pytest.raises(UserError) as error:
      resolve(tmp_path / "a\nb")
    return str(error.value)

  with pytest.MonkeyPatch.context() as off:
    off.setattr(UserError, "__str__", ValueError.__str__)
    assert "\n" in text()
  assert "\n" not in text()


def test_fault_29_a_folder_that_cannot_be_made_would_be_a_traceback(
  toy_fit, tmp_path
):
  """Remedy: what the system refuses there becomes one line."""
  (tmp_path / "file").write_text("no folder")
  with pytest.MonkeyPatch.context() as off:
    off.setattr(run_folder, "OSError", Never, raising=False)
    with pytest.raises(OSError):
      toy_fit(tmp_path / "file" / "run")
  with pytest.raises(UserError, match="Not a directory"):
    toy_fit(tmp_path / "file" / "run")
