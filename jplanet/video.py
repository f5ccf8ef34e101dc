"""Video files, with a fallback where ffmpeg is missing."""

import logging
import os
import pathlib
import shutil
import subprocess
from collections.abc import Sequence

import numpy as np

_log = logging.getLogger(__name__)


def write_video(
  path: str | os.PathLike,
  frames: np.ndarray,
  *,
  fps: int = 20,
  scale: int = 4,
) -> pathlib.Path:
  """Writes frames as an mp4 (h264), or as a GIF where that is impossible.

  Args:
    path: where to write. A name that ends in `.gif` gives a GIF; any other
      suffix than `.mp4` counts as part of the name.
    frames: uint8 `[T, H, W, 3]`.
    fps: frames per second, 1 to 50 (browsers slow down faster GIFs).
    scale: whole number by which each side is enlarged, pixel by pixel.

  Returns:
    The path of the file written: its suffix tells the format.

  Raises:
    ValueError: for frames, fps or scale of another kind.
    RuntimeError: when neither ffmpeg nor pillow can write the file.
  """
  frames = _check(frames)
  if not (1 <= fps <= 50 and scale >= 1 and scale == int(scale)):
    raise ValueError(
      "expected fps from 1 to 50 and a whole scale of at least 1, got "
      f"fps={fps} and scale={scale}"
    )
  path = pathlib.Path(path).expanduser()
  if path.suffix not in (".mp4", ".gif"):
    path = path.with_name(path.name + ".mp4")
  path.parent.mkdir(parents=True, exist_ok=True)
  frames = frames.repeat(int(scale), axis=1).repeat(int(scale), axis=2)
  if path.suffix == ".mp4":
    try:
      return _write(_write_mp4, path, frames, fps)
    except (OSError, RuntimeError, subprocess.TimeoutExpired) as error:
      _log.warning("No mp4 (%s); writing a GIF.", _one_line(error))
  try:
    return _write(_write_gif, path.with_suffix(".gif"), frames, fps)
  except (ImportError, OSError) as error:
    raise RuntimeError(
      f"cannot write a video at {path} ({_one_line(error)}); "
      "pip install 'jplanet[video]' brings ffmpeg and pillow"
    ) from error


def side_by_side(*videos: np.ndarray, gap: int = 2) -> np.ndarray:
  """Puts videos beside each other, left to right.

  Args:
    *videos: uint8 `[T, H, W, 3]`, of one height. A shorter one holds its last
      frame until the longest ends.
    gap: black columns between two videos.

  Returns:
    uint8 `[T, H, sum of widths and gaps, 3]`.

  Raises:
    ValueError: for no video, or videos of different heights.
  """
  videos = [_check(video) for video in videos]
  if len({video.shape[1] for video in videos}) != 1:
    raise ValueError(
      "expected at least one video, all of one height, got shapes "
      f"{[video.shape for video in videos]}"
    )
  length = max(len(video) for video in videos)
  blank = np.zeros((length, videos[0].shape[1], gap, 3), np.uint8)
  parts = []
  for video in videos:
    hold = np.repeat(video[-1:], length - len(video), axis=0)
    parts += [blank, np.concatenate([video, hold])]
  return np.concatenate(parts[1:], axis=2)


def tile(
  videos: Sequence[np.ndarray], columns: int | None = None, gap: int = 2
) -> np.ndarray:
  """Lays videos out in a grid, row by row.

  Args:
    videos: uint8 `[T, H, W, 3]` each, or one array `[N, T, H, W, 3]`; all of
      one height and width.
    columns: videos per row; by default the grid is about square.
    gap: black pixels between two videos. Empty places are black.

  Returns:
    uint8 `[T, rows * H + gaps, columns * W + gaps, 3]`.

  Raises:
    ValueError: for no video, or videos of different sizes.
  """
  videos = [_check(video) for video in videos]
  if len({video.shape[1:] for video in videos}) != 1:
    raise ValueError(
      "expected at least one video, all of one size, got shapes "
      f"{[video.shape for video in videos]}"
    )
  columns = columns or int(np.ceil(np.sqrt(len(videos))))
  black = np.zeros((1, *videos[0].shape[1:]), np.uint8)
  videos += [black] * (-len(videos) % columns)
  rows = [
    side_by_side(*videos[i : i + columns], gap=gap)
    for i in range(0, len(videos), columns)
  ]
  # A grid turned on its side is a row of its rows.
  turned = [row.swapaxes(1, 2) for row in rows]
  return side_by_side(*turned, gap=gap).swapaxes(1, 2)


def _check(frames) -> np.ndarray:
  frames = np.asarray(frames)
  good = frames.ndim == 4 and frames.shape[-1] == 3 and frames.size
  if not good or frames.dtype != np.uint8:
    raise ValueError(
      "expected uint8 frames [T, H, W, 3] with values 0 to 255, got "
      f"{frames.dtype} {list(frames.shape)}"
    )
  return frames


def _write(writer, path: pathlib.Path, frames, fps: int) -> pathlib.Path:
  # Under another name first: a failed or killed writer leaves no half video.
  temporary = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
  try:
    writer(temporary, frames, fps)
    os.replace(temporary, path)
  finally:
    temporary.unlink(missing_ok=True)
  return path


def _write_mp4(path: pathlib.Path, frames: np.ndarray, fps: int):
  # yuv420p halves the colour planes, so both sides must be even.
  height, width = frames.shape[1:3]
  pad = ((0, 0), (0, height % 2), (0, width % 2), (0, 0))
  frames = np.pad(frames, pad, mode="edge")
  size = f"{frames.shape[2]}x{frames.shape[1]}"
  command = [_find_ffmpeg(), "-loglevel", "error", "-y"]
  command += ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", size, "-r", str(fps)]
  command += ["-i", "-", "-c:v", "libx264", "-pix_fmt", "yuv420p"]
  command += ["-crf", "18", "-movflags", "+faststart"]
  # A relative name with a colon would be taken for a protocol.
  command += [str(path.absolute())]
  # Not through imageio's writer: its preexec_fn makes Python fork, and a fork
  # can deadlock under JAX's threads. A new session keeps Ctrl-C from ffmpeg.
  done = subprocess.run(
    command,
    input=frames.tobytes(),
    capture_output=True,
    start_new_session=True,
    timeout=600,
  )
  if done.returncode or not path.is_file():
    message = done.stderr.decode(errors="replace").strip()
    raise RuntimeError(message or f"ffmpeg exited with {done.returncode}")


def _find_ffmpeg() -> str:
  try:
    import imageio_ffmpeg

    return imageio_ffmpeg.get_ffmpeg_exe()
  except ImportError:
    found = shutil.which("ffmpeg")
    if found is None:
      raise RuntimeError("no ffmpeg found") from None
    return found


def _write_gif(path: pathlib.Path, frames: np.ndarray, fps: int):
  from PIL import Image

  first, *rest = [Image.fromarray(frame) for frame in frames]
  first.save(
    path,
    save_all=True,
    append_images=rest,
    duration=round(1000 / fps),
    loop=0,
  )


def _one_line(error: Exception) -> str:
  lines = str(error).strip().splitlines()
  return lines[0] if lines else type(error).__name__
