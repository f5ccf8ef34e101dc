"""Hold a folder for one process."""

import errno
import fcntl
import json
import os
import socket
import time
import warnings
from pathlib import Path

from jlejepa.runtime.errors import UserError

_HELD = (errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES)


class FolderLock:
  """A lock on a folder that the system releases when its holder dies.

  `flock` rather than a file with a process number: after kill -9, a reboot or
  the reuse of a process number nothing stale is left to break. The file
  `.lock` stays, and names its last holder.
  """

  def __init__(self, folder: Path):
    """Takes the lock.

    Raises:
      UserError: naming process and host, if another process holds it.
      OSError: if the file cannot be written.
    """
    self._file = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
      fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
      if error.errno in _HELD:
        holder = _describe(os.pread(self._file, 1000, 0))
        os.close(self._file)
        raise UserError(
          f"{folder} is in use by {holder}: wait for it, stop it, or choose "
          "another --workdir"
        ) from None
      # Some network drives cannot lock; a run there is better than none.
      warnings.warn(
        f"{folder} cannot be locked ({error.strerror}): see to it that one "
        "process at a time uses it",
        stacklevel=2,
      )
    holder = {
      "pid": os.getpid(),
      "host": socket.gethostname(),
      "since": time.strftime("%Y-%m-%d %H:%M:%S"),
    }
    os.ftruncate(self._file, 0)
    os.pwrite(self._file, json.dumps(holder).encode(), 0)

  def release(self) -> None:
    """Gives the folder back; a second call does nothing."""
    if self._file is not None:
      os.close(self._file)
      self._file = None


def _describe(text: bytes) -> str:
  try:
    holder = json.loads(text)
    return "process {pid} on {host} since {since}".format(**holder)
  except (ValueError, KeyError, TypeError):
    return "another process"
