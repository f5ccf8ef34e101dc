"""Write files so that a reader sees the old content or the new, never half."""

import contextlib
import errno
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jlejepa.runtime.errors import UserError

# How the name of a half-written file ends; it begins with a dot.
TEMPORARY = ".tmp"
_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO)


def atomic_write_text(path: str | os.PathLike, text: str) -> None:
  """Replaces a file's content in one step that survives kill -9.

  The text goes to a temporary file in the same folder, is flushed to the disk,
  and takes the name with `os.replace`.

  Raises:
    OSError: if the disk is full or the folder cannot be written; the old
      content is then still there.
  """
  path = Path(path)
  handle, temporary = tempfile.mkstemp(
    dir=path.parent, prefix=f".{path.name}.", suffix=TEMPORARY
  )
  try:
    # mkstemp makes files that only the owner reads.
    os.fchmod(handle, 0o644)
    with os.fdopen(handle, "w", encoding="utf-8") as file:
      file.write(text)
      file.flush()
      os.fsync(file.fileno())
    os.replace(temporary, path)
  except BaseException:
    Path(temporary).unlink(missing_ok=True)
    raise


def atomic_write_json(path: str | os.PathLike, value: Any) -> None:
  """Replaces a file by a value as indented JSON, in one step.

  NumPy scalars and arrays become numbers and lists.

  Raises:
    TypeError: if the value cannot be written as JSON.
    OSError: as `atomic_write_text`.
  """
  text = json.dumps(value, indent=2, default=plain)
  atomic_write_text(path, text + "\n")


def plain(value: Any) -> Any:
  """Converts a NumPy or JAX scalar or array to what JSON carries."""
  if hasattr(value, "tolist"):
    return value.tolist()
  if isinstance(value, os.PathLike):
    return os.fspath(value)
  raise TypeError(f"{type(value).__name__} cannot be written as JSON")


def os_reason(error: OSError) -> str:
  """Describes a failed file operation in a few words."""
  return error.strerror or str(error)


@contextlib.contextmanager
def explain_disk_errors(folder: str | os.PathLike) -> Iterator[None]:
  """Turns a full, read-only or broken disk under a run into one line.

  Raises:
    UserError: in place of such an `OSError`; others pass.
  """
  try:
    yield
  except OSError as error:
    if error.errno not in _DISK:
      raise
    raise UserError(
      f"{folder} cannot be written ({os_reason(error)}); its last checkpoint "
      "is intact: make room, then run the same command again"
    ) from error
