"""Save and restore the state of a run, so that no fault passes unseen.

Orbax writes the arrays. It does not notice a flipped bit, takes an empty folder
for a checkpoint, and casts float32 into a bfloat16 template without a word;
hence the manifest. `checkpoints/<step>/` holds `state/` (orbax), `extra.json`
and `manifest.json`: the SHA-256 of every file and of itself, and name, shape
and dtype of every array. A step is written as `<step>.tmp` and renamed when
complete. Several processes of one run share the folder: each writes its part
of the arrays, the first one everything else.
"""

import copy
import importlib.metadata
import json
import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp

from jlejepa.runtime.beside import Beside
from jlejepa.runtime.errors import UserError
from jlejepa.runtime.files import atomic_write_json
from jlejepa.runtime.leaves import (
  copy_leaf,
  describe_leaf,
  differences,
  is_key,
  names_and_leaves,
  restore_leaf,
  restore_target,
  storable,
)
from jlejepa.runtime.manifest import (
  MANIFEST,
  read_manifest,
  verify,
  write_manifest,
)
from jlejepa.runtime.processes import is_primary, largest, primary_alone

_TMP = ".tmp"


class CheckpointError(UserError):
  """Reports that checkpoints cannot be written or none can be restored."""


class Checkpoints:
  """The last checkpoints of a run.

  Args:
    directory: the folder for them; made by the first `save`.
    keep: how many to keep, newest first. With one, a damaged checkpoint is the
      end of the run.
  """

  def __init__(self, directory: str | os.PathLike, keep: int = 2):
    # Orbax refuses relative paths.
    self.directory = Path(directory).expanduser().absolute()
    self._keep = keep
    self._beside = Beside()

  def __enter__(self) -> "Checkpoints":
    return self

  def __exit__(self, kind, *_) -> None:
    self._beside.close(kind)

  def steps(self) -> list[int]:
    """Returns the saved steps, ascending; they may still prove damaged."""
    if not self.directory.is_dir():
      return []
    return sorted(
      int(path.name)
      for path in self.directory.iterdir()
      if _is_number(path.name) and (path / MANIFEST).is_file()
    )

  def save(
    self, step: int, tree: Any, extra: Mapping[str, Any] | None = None
  ) -> None:
    """Writes a checkpoint, after what is under way; returns when complete.

    Removes the oldest ones beyond `keep`, and any of a later step: those are
    from before a fall-back, and the run is about to write them again.

    Args:
      step: its number, from 0.
      tree: arrays, numbers and typed PRNG keys, in any pytree.
      extra: what JSON carries; NumPy numbers become plain ones.

    Raises:
      CheckpointError: if it cannot be written; the ones before are intact.
    """
    self.wait()
    self._save(step, tree, extra)

  def save_beside(
    self, step: int, tree: Any, extra: Mapping[str, Any] | None = None
  ) -> None:
    """Copies the state, and writes it beside what the caller does next.

    Arrays may be donated and the pytree changed as soon as this returns. As a
    context manager, `Checkpoints` waits at its end. Several processes of one
    run write at once, as they must do the same things in the same order.

    Args:
      step, tree, extra: as for `save`.

    Raises:
      CheckpointError: if the one before could not be written; for this one,
        `check`, `wait` or the next save raises it.
    """
    if jax.process_count() > 1:
      self.save(step, tree, extra)
      return
    self.wait()
    tree = jax.tree.map(copy_leaf, tree)
    extra = copy.deepcopy(dict(extra or {}))
    self._beside.start(lambda: self._save(step, tree, extra))

  def check(self) -> None:
    """Raises what writing beside raised, if it is over."""
    self._beside.check()

  def wait(self) -> None:
    """Returns when nothing is under way; raises what its writing raised."""
    self._beside.wait()

  def _save(
    self, step: int, tree: Any, extra: Mapping[str, Any] | None
  ) -> None:
    folder = self.directory / f"{step}"
    temporary = self.directory / f"{step}{_TMP}"
    names, leaves = names_and_leaves(tree)
    state = {name: storable(leaf) for name, leaf in zip(names, leaves)}
    keys = {
      name: str(jax.random.key_impl(leaf))
      for name, leaf in zip(names, leaves)
      if is_key(leaf)
    }
    content = {
      "arrays": {
        name: describe_leaf(leaf) for name, leaf in zip(names, leaves)
      },
      "keys": keys,
    }
    try:
      primary_alone(lambda: self._make_room(temporary))
      ocp.Checkpointer(ocp.StandardCheckpointHandler()).save(
        temporary / "state", state
      )
      primary_alone(lambda: self._complete(step, content, extra))
    except BaseException as error:
      if is_primary():
        shutil.rmtree(temporary, ignore_errors=True)
      # Orbax turns a full disk into a ValueError of many lines.
      if not isinstance(error, OSError | ValueError):
        raise
      reason = str(error).strip().splitlines()[-1][-200:]
      raise CheckpointError(
        f"checkpoint {folder} could not be written ({reason}); the ones before "
        "are intact: make room, then run the same command again"
      ) from error

  def _make_room(self, temporary: Path) -> None:
    self.directory.mkdir(parents=True, exist_ok=True)
    for path in self.directory.glob(f"*{_TMP}"):
      # A killed process left them; names of another form are not ours.
      if _is_number(path.name.removesuffix(_TMP)):
        _remove(path)
    temporary.mkdir()

  def _complete(
    self, step: int, content: dict, extra: Mapping[str, Any] | None
  ) -> None:
    folder = self.directory / f"{step}"
    temporary = self.directory / f"{step}{_TMP}"
    atomic_write_json(temporary / "extra.json", dict(extra or {}))
    write_manifest(temporary, content)
    for stale in self.steps():
      if stale > step:
        shutil.rmtree(self.directory / f"{stale}")
    _remove(folder)
    os.replace(temporary, folder)
    for old in self.steps()[: -self._keep]:
      shutil.rmtree(self.directory / f"{old}")

  def restore(self, template: Any) -> tuple[int, Any, dict[str, Any]] | None:
    """Returns step, tree and extra of the newest intact checkpoint.

    A damaged one is passed over with one line on stderr.

    Args:
      template: a tree like the one saved, of arrays, numbers or
        `jax.ShapeDtypeStruct`; each array comes back with the template's
        shape, dtype and sharding.

    Returns:
      None where nothing has been saved.

    Raises:
      CheckpointError: if all are damaged.
      UserError: if an array of the template differs from the saved one, with
        its name, or is missing on one side.
    """
    self.wait()
    found = primary_alone(self._newest_intact)
    step = largest(-1 if found is None else found)
    if step < 0:
      return None
    folder = self.directory / f"{step}"
    tree = _restore(folder, read_manifest(folder), template)
    return step, tree, json.loads((folder / "extra.json").read_text())

  def _newest_intact(self) -> int | None:
    steps = self.steps()
    for step in reversed(steps):
      folder = self.directory / f"{step}"
      try:
        verify(folder)
        return step
      except (OSError, ValueError, RecursionError) as error:
        print(f"checkpoint {folder} is damaged: {error}", file=sys.stderr)
    if steps:
      raise CheckpointError(
        f"every checkpoint in {self.directory} is damaged (steps "
        f"{', '.join(map(str, steps))}): delete the folder to start afresh"
      )
    return None


def _restore(folder: Path, manifest: dict, template: Any) -> Any:
  names, leaves = names_and_leaves(template)
  wanted = {name: describe_leaf(leaf) for name, leaf in zip(names, leaves)}
  if found := differences(manifest["arrays"], wanted):
    more = f" and {len(found) - 3} more" if len(found) > 3 else ""
    raise UserError(
      f"checkpoint {folder} does not fit the model: {'; '.join(found[:3])}"
      f"{more}: run with the config and the release that wrote it, or in "
      "another workdir"
    )
  targets = {name: restore_target(leaf) for name, leaf in zip(names, leaves)}
  try:
    state = ocp.Checkpointer(ocp.StandardCheckpointHandler()).restore(
      folder / "state", args=ocp.args.StandardRestore(targets)
    )
  except Exception as error:
    # The files are as they were written: another release of orbax wrote them.
    version = importlib.metadata.version("orbax-checkpoint")
    raise CheckpointError(
      f"checkpoint {folder} is intact, but orbax-checkpoint {version} cannot "
      f"read it ({error}): install the release that environment.json names"
    ) from error
  restored = [
    restore_leaf(leaf, state[name], manifest["keys"].get(name))
    for name, leaf in zip(names, leaves)
  ]
  return jax.tree.unflatten(jax.tree.structure(template), restored)


def _is_number(name: str) -> bool:
  return name.isascii() and name.isdigit() and str(int(name)) == name


def _remove(path: Path) -> None:
  if path.is_dir() and not path.is_symlink():
    shutil.rmtree(path)
  else:
    path.unlink(missing_ok=True)
