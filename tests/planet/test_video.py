"""Video files: what is in them, and what happens without ffmpeg."""

import os
import re
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from jplanet.video import side_by_side, tile, write_video

imageio_ffmpeg = pytest.importorskip("imageio_ffmpeg")


def _frames(length=6, height=10, width=14):
  """Makes frames of one colour each, far from each other."""
  levels = np.linspace(20, 230, length).astype(np.uint8)
  colour = np.stack([levels, levels[::-1], np.full(length, 90)], -1)
  frames = np.broadcast_to(colour[:, None, None], (length, height, width, 3))
  return frames.astype(np.uint8)


def _decode(path, height, width):
  command = [imageio_ffmpeg.get_ffmpeg_exe(), "-loglevel", "error", "-i", path]
  command += ["-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
  raw = subprocess.run(command, capture_output=True, check=True).stdout
  return np.frombuffer(raw, np.uint8).reshape(-1, height, width, 3)


def test_an_mp4_holds_the_frames(tmp_path):
  frames = _frames()
  path = write_video(tmp_path / "deep" / "a", frames, scale=4)
  assert path == tmp_path / "deep" / "a.mp4"
  got = _decode(path, 40, 56)
  assert len(got) == len(frames)
  want = frames.repeat(4, 1).repeat(4, 2).astype(int)
  assert np.abs(got - want).max() < 12
  assert os.listdir(tmp_path / "deep") == ["a.mp4"]


def test_an_mp4_is_h264_in_yuv420p_at_the_asked_rate(tmp_path):
  path = write_video(tmp_path / "a.mp4", _frames(), fps=12)
  told = subprocess.run(
    [imageio_ffmpeg.get_ffmpeg_exe(), "-i", path], capture_output=True
  ).stderr.decode()
  assert re.search(r"Video: h264.*yuv420p", told)
  assert "12 fps" in told


def test_odd_sides_grow_by_one_edge_pixel(tmp_path):
  path = write_video(tmp_path / "a", _frames(3, 11, 13), scale=1)
  got = _decode(path, 12, 14)
  assert np.abs(got[:, 11, 13] - _frames(3)[:, 0, 0].astype(int)).max() < 12


def test_enlarging_repeats_pixels_and_does_not_blur(tmp_path):
  frames = np.zeros((1, 4, 4, 3), np.uint8)
  frames[:, 1, 2] = 255
  path = write_video(tmp_path / "a.gif", frames, scale=3)
  got = np.asarray(Image.open(path).convert("RGB"))
  np.testing.assert_array_equal(got, frames[0].repeat(3, 0).repeat(3, 1))


def test_only_video_suffixes_count_as_suffixes(tmp_path):
  names = ["a.mp4", "step_1.5", "b.gif"]
  got = [write_video(tmp_path / n, _frames(2), scale=1).name for n in names]
  assert got == ["a.mp4", "step_1.5.mp4", "b.gif"]


def test_a_name_may_hold_a_colon_and_be_relative(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  assert write_video("task: a", _frames(2)).name == "task: a.mp4"
  assert os.listdir() == ["task: a.mp4"]


def _no_ffmpeg(monkeypatch, tmp_path):
  monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
  monkeypatch.setenv("PATH", "")


def _missing_ffmpeg(monkeypatch, tmp_path):
  monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", "/nonexistent/ffmpeg")


def _broken_ffmpeg(monkeypatch, tmp_path):
  # It writes half a file, stops reading and fails.
  fake = tmp_path / "fake-ffmpeg"
  fake.write_text(
    '#!/bin/sh\nfor a in "$@"; do last=$a; done\n'
    'echo half > "$last"\necho "no such codec" >&2\nexit 1\n'
  )
  fake.chmod(0o755)
  monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", str(fake))


@pytest.mark.parametrize("fault", [_no_ffmpeg, _missing_ffmpeg, _broken_ffmpeg])
def test_without_a_working_ffmpeg_it_is_a_gif(
  tmp_path, monkeypatch, caplog, fault
):
  fault(monkeypatch, tmp_path)
  # Larger than a pipe's buffer, so that a dead reader is noticed.
  frames = _frames(6, 64, 64)
  path = write_video(tmp_path / "out" / "a.mp4", frames, fps=20, scale=2)
  assert path == tmp_path / "out" / "a.gif"
  assert os.listdir(tmp_path / "out") == ["a.gif"]
  assert "No mp4" in caplog.text and "\n" not in caplog.messages[0]
  with Image.open(path) as gif:
    assert gif.n_frames == 6 and gif.size == (128, 128)
    assert gif.info["duration"] == 50
    for i, frame in enumerate(frames):
      gif.seek(i)
      got = np.asarray(gif.convert("RGB")).astype(int)
      assert np.abs(got - frame[0, 0]).max() < 8


def test_ffmpeg_on_the_path_serves_without_imageio_ffmpeg(
  tmp_path, monkeypatch
):
  (tmp_path / "bin").mkdir()
  os.symlink(imageio_ffmpeg.get_ffmpeg_exe(), tmp_path / "bin" / "ffmpeg")
  monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
  monkeypatch.setenv("PATH", str(tmp_path / "bin"))
  assert write_video(tmp_path / "a", _frames(2)).suffix == ".mp4"


def test_without_ffmpeg_and_pillow_the_error_says_what_to_install(
  tmp_path, monkeypatch
):
  _no_ffmpeg(monkeypatch, tmp_path)
  monkeypatch.setitem(sys.modules, "PIL", None)
  with pytest.raises(RuntimeError, match=r"pip install 'jplanet\[video\]'"):
    write_video(tmp_path / "a", _frames(2))
  assert not list(tmp_path.iterdir())


def test_writing_never_forks_python(tmp_path):
  # A fork can deadlock under JAX's threads.
  forks = []
  os.register_at_fork(before=lambda: forks.append(1))
  write_video(tmp_path / "a", _frames(2))
  assert not forks


@pytest.mark.parametrize(
  "frames",
  [
    _frames().astype(np.float32) / 255,
    _frames()[0],
    _frames()[..., :1],
    _frames()[:0],
  ],
  ids=["float", "one frame", "one channel", "none"],
)
def test_other_frames_are_refused(tmp_path, frames):
  with pytest.raises(ValueError, match=r"uint8 frames \[T, H, W, 3\]"):
    write_video(tmp_path / "a", frames)


@pytest.mark.parametrize("option", [{"fps": 0}, {"scale": 0}, {"scale": 1.5}])
def test_other_options_are_refused(tmp_path, option):
  with pytest.raises(ValueError, match="fps from 1 to 50"):
    write_video(tmp_path / "a", _frames(2), **option)


def test_side_by_side_keeps_every_video_and_holds_the_short_one():
  a, b = _frames(4, 6, 5), 255 - _frames(2, 6, 3)
  got = side_by_side(a, b, gap=2)
  assert got.shape == (4, 6, 5 + 2 + 3, 3)
  np.testing.assert_array_equal(got[:, :, :5], a)
  assert not got[:, :, 5:7].any()
  np.testing.assert_array_equal(got[:2, :, 7:], b)
  np.testing.assert_array_equal(got[2:, :, 7:], b[[1, 1]])


def test_tile_goes_row_by_row_and_leaves_the_rest_black():
  videos = [np.full((t, 4, 6, 3), 50 * t, np.uint8) for t in range(1, 6)]
  got = tile(videos, columns=3, gap=1)
  assert got.shape == (5, 4 + 1 + 4, 6 * 3 + 2, 3)
  for i, video in enumerate(videos):
    top, left = 5 * (i // 3), 7 * (i % 3)
    cell = got[:, top : top + 4, left : left + 6]
    assert (cell == video[0, 0, 0, 0]).all()
  assert not got[:, 5:, 14:].any() and not got[:, 4].any()
  assert tile(videos).shape == (5, 4 * 2 + 2, 6 * 3 + 4, 3)
  assert tile(np.stack(videos[:1])).shape == (1, 4, 6, 3)


def test_videos_that_do_not_fit_are_refused():
  with pytest.raises(ValueError, match="one height"):
    side_by_side(_frames(2, 4, 4), _frames(2, 6, 4))
  with pytest.raises(ValueError, match="one size"):
    tile([_frames(2, 4, 4), _frames(2, 4, 6)])
  with pytest.raises(ValueError, match="at least one"):
    side_by_side()
  with pytest.raises(ValueError, match="at least one"):
    tile([])
