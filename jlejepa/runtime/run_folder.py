"""The folder of one run: who uses it, which config it belongs to, its parts."""

import json
import os
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from jlejepa.runtime.environment import changes, describe_environment
from jlejepa.runtime.errors import UserError
from jlejepa.runtime.files import (
  TEMPORARY,
  atomic_write_json,
  os_reason,
  plain,
)
from jlejepa.runtime.lock import FolderLock
from jlejepa.runtime.processes import primary_alone

# A resume with another of these is equal statistically, not bit for bit.
_BITS = (
  "packages", "device_kind", "device_count", "process_count", "vector_sets",
)  # fmt: skip


class RunFolder:
  """A run's folder, held by this process until `close`.

  Where the run has several processes, the first one holds it for all.

  Attributes:
    path: the folder, absolute.
    checkpoints, episodes, videos, plots: its sub-folders, made by their users.
    scores: its `scores.json`.
  """

  def __init__(self, path: Path, lock: FolderLock | None):
    self.path = path
    self.checkpoints = path / "checkpoints"
    self.episodes = path / "episodes"
    self.videos = path / "videos"
    self.plots = path / "plots"
    self.scores = path / "scores.json"
    self._lock = lock

  @classmethod
  def open(
    cls,
    workdir: str | os.PathLike,
    config: ConfigDict,
    *,
    force: bool = False,
    ignore: Iterable[str] = ("runtime",),
    extra: Mapping[str, Any] | None = None,
  ) -> "RunFolder":
    """Makes or reopens a run's folder and locks it.

    Writes `config.json` and `environment.json`.

    Args:
      workdir: the folder; `~` and relative paths are resolved.
      config: the run's config.
      force: whether to take a folder that holds a run of another config, whose
        `config.json` is then replaced.
      ignore: dotted keys and sections in which two configs of one run may
        differ.
      extra: more facts for `environment.json`, such as the renderer.

    Raises:
      UserError: if the folder cannot be written, is in use, or belongs to a
        run of another config.
    """
    path = resolve(workdir)
    environment = {**describe_environment(), **(extra or {})}
    lock = primary_alone(
      lambda: _take(path, config, force, tuple(ignore), environment)
    )
    return cls(path, lock)

  def close(self) -> None:
    """Gives the folder back."""
    if self._lock is not None:
      self._lock.release()

  def __enter__(self) -> "RunFolder":
    return self

  def __exit__(self, *exception: object) -> None:
    self.close()


def resolve(workdir: str | os.PathLike) -> Path:
  """Returns an absolute path, with `~` replaced.

  Raises:
    UserError: if the path is empty, impossible or a file.
  """
  text = os.fspath(workdir)
  # Orbax takes UTF-8 alone; other bytes come as lone surrogates.
  if not text or "\0" in text or not _is_utf8(text):
    raise UserError(f"workdir {text!r} is no folder name")
  try:
    path = Path(text).expanduser().absolute()
    taken = path.exists() and not path.is_dir()
  except OSError as error:
    raise UserError(f"workdir {text}: {os_reason(error)}") from error
  except RuntimeError as error:
    raise UserError(f"workdir {text}: {error}") from error
  if taken:
    raise UserError(f"workdir {path} is a file, not a folder")
  return path


def _is_utf8(text: str) -> bool:
  try:
    return bool(text.encode())
  except UnicodeEncodeError:
    return False


def hold_folder(path: Path) -> RunFolder:
  """Locks the folder of a run that exists.

  Raises:
    UserError: it cannot be read, or another process holds it.
  """
  try:
    return RunFolder(path, FolderLock(path))
  except OSError as error:
    raise UserError(
      f"workdir {path} cannot be used: {os_reason(error)}"
    ) from error


def read_config(workdir: str | os.PathLike) -> ConfigDict:
  """Returns the locked config of the run in a folder.

  Lists become tuples, which is what configs hold.

  Raises:
    UserError: if there is no run, or its `config.json` is damaged.
  """
  path = resolve(workdir) / "config.json"
  try:
    config = ConfigDict(_tuples(json.loads(path.read_text(encoding="utf-8"))))
  except FileNotFoundError:
    raise UserError(
      f"{path.parent} holds no run: {path.name} is missing; train there first"
    ) from None
  except OSError as error:
    raise UserError(f"{path} cannot be read: {os_reason(error)}") from error
  except (ValueError, AttributeError) as error:
    raise UserError(f"{path} is damaged: {error}") from error
  return config.lock()


def _take(
  path: Path,
  config: ConfigDict,
  force: bool,
  ignore: tuple[str, ...],
  environment: Mapping[str, Any],
) -> FolderLock:
  lock = None
  try:
    path.mkdir(parents=True, exist_ok=True)
    lock = FolderLock(path)
    _claim(path / "config.json", config, force, ignore)
    _note_changes(path / "environment.json", environment)
    atomic_write_json(path / "environment.json", environment)
    for left_over in path.glob(f".*{TEMPORARY}"):
      # A writer that was killed; the lock says that there is no other.
      left_over.unlink()
  except BaseException as error:
    if lock is not None:
      lock.release()
    if isinstance(error, OSError):
      raise UserError(
        f"workdir {path} cannot be used: {os_reason(error)}"
      ) from error
    raise
  return lock


def _claim(
  path: Path, config: ConfigDict, force: bool, ignore: tuple[str, ...]
) -> None:
  wanted = json.loads(json.dumps(config.to_dict(), default=plain))
  if path.exists() and not force:
    found = _lists(read_config(path.parent).to_dict())
    differing = [
      change
      for change in changes(found, wanted)
      if not any(f"{change} ".startswith((f"{k}.", f"{k} ")) for k in ignore)
    ]
    if differing:
      shown = ", ".join(differing[:8])
      more = len(differing) - 8
      shown += f" and {more} more" if more > 0 else ""
      raise UserError(
        f"{path.parent} holds a run of another config ({shown}): choose "
        "another --workdir, or go on with the new config with --force"
      )
  atomic_write_json(path, wanted)


def _note_changes(path: Path, environment: Mapping[str, Any]) -> None:
  try:
    before = json.loads(path.read_text(encoding="utf-8"))
    # Older runs noted fewer of them.
    old = {key: before[key] for key in _BITS if key in before}
  except (OSError, ValueError, TypeError):
    return
  found = changes(old, {key: environment[key] for key in old})
  if found:
    print(
      f"note: the run goes on with {', '.join(found)}: equal statistically to "
      "an unchanged run, not bit for bit",
      file=sys.stderr,
    )


def _tuples(value: Any) -> Any:
  if isinstance(value, dict):
    return {key: _tuples(item) for key, item in value.items()}
  if isinstance(value, list):
    return tuple(_tuples(item) for item in value)
  return value


def _lists(value: Any) -> Any:
  return json.loads(json.dumps(value))
