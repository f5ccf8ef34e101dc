"""Seeded damage: to bytes, to folders, to texts."""

import contextlib
import faulthandler
import os
import pickle
import random
import shutil
from collections.abc import Iterator
from pathlib import Path

PATIENCE = 600  # Seconds after which one damaged thing counts as a hang.
TEXTS = (
  "", "nan", "inf", "-inf", "-1", "0", "1", "2", "1e3", "1e400", "1_0", "1.5",
  "0x10", "１", "²", "True", "none", "None", "null", "''", '""', "()", "(1,)",
  "(1,2", "[1,[2]]", "((((", "a,b", "{}", "{'a':1}", "1+1", "__import__('os')",
  "\n", "\0", "é", "\ud800", "x" * 5000, "9" * 5000, "(" * 300, "-0", " 3 ",
  "1e-400", "3j", "1,2,3", "on", "off", "%s", "--help", "=", "==",
)  # fmt: skip


def patiently(count: int) -> Iterator[int]:
  """Counts, and ends the process with a traceback if one item hangs."""
  try:
    for number in range(count):
      faulthandler.dump_traceback_later(PATIENCE, exit=True)
      yield number
  finally:
    faulthandler.cancel_dump_traceback_later()


def one_line(error: Exception) -> str:
  """Requires that an error's text is one line, and returns it."""
  text = str(error)
  assert text and "\n" not in text, repr(text)
  return text


def damage(data: bytes, rng: random.Random) -> bytes:
  """Returns the bytes with one to three faults in them."""
  for _ in range(rng.choice((1, 1, 1, 2, 3))):
    data = rng.choice(FAULTS)(bytearray(data), rng)
  return bytes(data)


def _flip(data, rng):
  if data:
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
  return data


def _byte(data, rng):
  if data:
    data[rng.randrange(len(data))] = rng.choice((0, 1, 127, 128, 255))
  return data


def _cut(data, rng):
  return data[: rng.choice((0, 1, len(data) - 1, rng.randint(0, len(data))))]


def _zeros(data, rng):
  start, end = sorted(rng.randint(0, len(data)) for _ in range(2))
  data[start:end] = bytes(end - start)
  return data


def _drop(data, rng):
  start = rng.randint(0, len(data))
  del data[start : start + rng.choice((1, 2, 8, 512))]
  return data


def _repeat(data, rng):
  start = rng.randint(0, len(data))
  end = start + rng.choice((1, 2, 8, 512))
  data[start:start] = data[start:end]
  return data


def _insert(data, rng):
  start = rng.randint(0, len(data))
  data[start:start] = rng.randbytes(rng.choice((1, 4, 64)))
  return data


def _swap(data, rng):
  a, b, c = sorted(rng.randint(0, len(data)) for _ in range(3))
  return data[:a] + data[b:c] + data[a:b] + data[c:]


def _append(data, rng):
  return data + rng.choice((b"\0", b"\n", rng.randbytes(100)))


def _replace(data, rng):
  size = len(data)
  choices = (b"", b"\0" * size, b"null", b"[" * 3000, rng.randbytes(size))
  return bytearray(rng.choice((*choices, pickle.dumps({"a": 1}))))


FAULTS = (
  _flip, _flip, _flip, _byte, _cut, _cut, _zeros, _drop, _repeat, _insert,
  _swap, _append, _replace,
)  # fmt: skip


def damage_folder(
  folder: Path, rng: random.Random, *, endless: bool = True
) -> str:
  """Does one thing to a folder; returns what.

  Args:
    folder: what to damage.
    rng: which damage.
    endless: whether a pipe, or a link to a device, may take a file's place.
  """
  files = sorted(path for path in folder.rglob("*") if path.is_file())
  folders = sorted(path for path in folder.rglob("*") if path.is_dir())
  action = rng.choice(("bytes",) * 12 + ("file",) * 4 + ("folder",) * 4)
  if not folders and action == "folder":
    action = "file"
  if action == "bytes":
    path = rng.choice(files)
    data = path.read_bytes()
    path.write_bytes(damage(data, rng))
    return f"bytes of {path.relative_to(folder)}"
  path = rng.choice(files if action == "file" else folders)
  kinds = ("remove", "rename", "empty", "exchange", "copy")
  kind = rng.choice((*kinds, "link", "pipe") if endless else kinds)
  other = rng.choice(files)
  what = f"{kind} {path.relative_to(folder)}, {other.relative_to(folder)}"
  if kind == "copy":
    name = rng.choice(("7", "9", "08", "8.tmp", "x.tmp", "-1", "²", "a b"))
    target = folder / name
    if path.is_dir():
      if path not in target.parents:
        # What was damaged before may not let itself be copied.
        with contextlib.suppress(shutil.Error):
          shutil.copytree(path, target, dirs_exist_ok=True)
    elif not target.is_dir():
      shutil.copy(path, target)
    return f"{what} to {name}"
  if kind == "rename":
    os.rename(path, path.with_name(rng.choice(("0", "5", "12", "x"))))
    return what
  content = other.read_bytes()
  shutil.rmtree(path) if path.is_dir() else path.unlink()
  if kind == "empty":
    path.mkdir()
  elif kind == "exchange":
    path.write_bytes(content)
  elif kind == "link":
    path.symlink_to(rng.choice(("/dev/zero", path.name, "nowhere")))
  elif kind == "pipe":
    os.mkfifo(path)
  return what


def damage_text(text: str, rng: random.Random) -> str:
  """Returns a text that is a little off, or another one."""
  kind = rng.randrange(6)
  if kind < 3:
    return rng.choice(TEXTS)
  if kind == 3 and text:
    at = rng.randrange(len(text))
    return text[:at] + rng.choice("0123456789.,-_e()[]'= xX") + text[at + 1 :]
  if kind == 4:
    return text + rng.choice(TEXTS)
  return rng.choice((str(rng.uniform(-10, 10)), str(rng.randint(-5, 10**20))))
