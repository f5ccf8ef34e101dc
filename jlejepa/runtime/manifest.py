"""A list of a folder's files with their SHA-256, and of itself."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jlejepa.runtime.files import atomic_write_json

MANIFEST = "manifest.json"


def write_manifest(folder: Path, content: Mapping[str, Any]) -> None:
  """Writes `content` and the hash of every file of the folder."""
  content = dict(content) | {"files": _hashes(folder)}
  manifest = {"content": content, "sha256": _digest(content)}
  atomic_write_json(folder / MANIFEST, manifest)


def read_manifest(folder: Path) -> dict[str, Any]:
  """Returns the content, unverified."""
  return _read(folder)["content"]


def verify(folder: Path) -> None:
  """Looks at the manifest and at every file.

  Raises:
    OSError: if there is no manifest.
    ValueError: if it or a file is not as it was written.
  """
  manifest = _read(folder)
  try:
    content, digest = manifest["content"], manifest["sha256"]
  except (KeyError, TypeError):
    raise ValueError(f"{MANIFEST} is no manifest") from None
  if _digest(content) != digest:
    raise ValueError(f"{MANIFEST} has changed since it was written")
  for name, digest in content["files"].items():
    path = folder / name
    if not path.is_file():
      raise ValueError(f"{name} is missing")
    if _sha256(path) != digest:
      raise ValueError(f"{name} has changed since it was written")


def _read(folder: Path) -> Any:
  return json.loads((folder / MANIFEST).read_text(encoding="utf-8"))


def _hashes(folder: Path) -> dict[str, str]:
  return {
    path.relative_to(folder).as_posix(): _sha256(path)
    for path in sorted(folder.rglob("*"))
    if path.is_file()
  }


def _sha256(path: Path) -> str:
  with open(path, "rb") as file:
    return hashlib.file_digest(file, "sha256").hexdigest()


def _digest(content: Any) -> str:
  text = json.dumps(content, sort_keys=True)
  return hashlib.sha256(text.encode()).hexdigest()
