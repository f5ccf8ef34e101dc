"""Pickles among checkpoints would make a file if anything loaded them."""

import json
import pickle
import shutil

import numpy as np
import pytest

from jlejepa.runtime.checkpoint import Checkpoints
from jlejepa.runtime.manifest import write_manifest

TREE = {"a": np.arange(6.0), "b": np.ones((2, 3), np.float32)}


class Bomb:
  def __init__(self, path):
    self.path = path

  def __reduce__(self):
    return (open, (str(self.path), "w"))


@pytest.fixture
def bomb(tmp_path):
  """A pickle, and whether it went off."""
  path = tmp_path / "exploded"
  content = pickle.dumps(Bomb(path))
  pickle.loads(content).close()
  assert path.exists()  # It would.
  path.unlink()
  yield content
  assert not path.exists()


def sign(folder):
  """Makes the manifest agree with the files, as whoever can write there can."""
  path = folder / "manifest.json"
  content = json.loads(path.read_text())["content"]
  path.unlink()
  write_manifest(folder, content)


def files(folder):
  return sorted(p.relative_to(folder) for p in folder.rglob("*") if p.is_file())


@pytest.mark.parametrize("signed", [False, True])
def test_a_pickle_in_place_of_any_file_is_never_loaded(signed, bomb, tmp_path):
  whole = Checkpoints(tmp_path / "whole")
  for step in (6, 8):
    whole.save(step, TREE, {"step": step})
  names = files(whole.directory / "8")
  assert len(names) > 5
  for i, name in enumerate(names):
    copy = Checkpoints(tmp_path / f"{i}")
    shutil.copytree(whole.directory, copy.directory)
    folder = copy.directory / "8"
    (folder / name).write_bytes(bomb)
    if signed and name.name != "manifest.json":
      sign(folder)
    try:
      step, tree, extra = copy.restore(TREE)
    except ValueError:
      assert signed
      continue
    # Found out, or of no consequence: orbax has files that it need not read.
    assert extra == {"step": step} and (signed or step == 6)
    assert all(np.array_equal(tree[k], TREE[k]) for k in TREE)


def test_a_pickle_beside_the_files_is_never_loaded(bomb, tmp_path):
  checkpoints = Checkpoints(tmp_path / "checkpoints")
  checkpoints.save(8, TREE)
  for place in ("9", "x.pkl", "8/state.pkl", "8/state/_x.pkl"):
    (checkpoints.directory / place).write_bytes(bomb)
  assert checkpoints.restore(TREE)[0] == 8
