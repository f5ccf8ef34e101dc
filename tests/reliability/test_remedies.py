"""What happens without a remedy: the faults are real, and found by their tests.

Each test of `test_remedies*.py` switches one remedy off, sees the fault do its
harm, and sees none with the remedy back on, where the test that
docs/reliability.md names does not show it already. Here: checkpoints, rows and
the run's folder.
"""

import fcntl
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jlejepa.runtime import checkpoint, metrics, run_folder
from jlejepa.runtime.checkpoint import CheckpointError, Checkpoints
from jlejepa.runtime.errors import UserError
from jlejepa.runtime.leaves import is_key
from jlejepa.runtime.lock import FolderLock
from jlejepa.runtime.metrics import MetricsWriter, read_metrics
from jlejepa.runtime.run_folder import read_config
from jplanet.replay import Episode, Replay

ROOT = Path(__file__).parents[2]
TREE = {"w": np.linspace(0, 1, 4000, dtype=np.float32)}


@pytest.fixture
def saved(tmp_path):
  checkpoints = Checkpoints(tmp_path / "checkpoints")
  checkpoints.save(6, TREE)
  checkpoints.save(8, TREE)
  return checkpoints


def largest_file(folder):
  return max(folder.rglob("*"), key=lambda p: p.is_file() and p.stat().st_size)


def flip(path, position):
  data = bytearray(path.read_bytes())
  data[position] ^= 1
  path.write_bytes(data)


def test_fault_7_orbax_restores_a_flipped_bit_without_a_word(saved):
  """Remedy: the checksum of every file."""
  data = largest_file(saved.directory / "8" / "state")
  intact, silent = data.read_bytes(), 0
  for position in np.linspace(1, len(intact) - 1, 40, dtype=int):
    flip(data, position)
    with pytest.MonkeyPatch.context() as off:
      off.setattr(checkpoint, "verify", lambda folder: None)
      try:
        step, tree, _ = saved.restore(TREE)
        silent += step == 8 and not np.array_equal(tree["w"], TREE["w"])
      except UserError:
        pass  # Orbax does see some.
    step, tree, _ = saved.restore(TREE)
    assert step == 6 and np.array_equal(tree["w"], TREE["w"])
    data.write_bytes(intact)
  assert silent > 5


@pytest.mark.parametrize("what", ["data", "extra.json"])
def test_fault_6_a_cut_file_would_end_every_resume(saved, what):
  """Remedy: the damage is found first, and the checkpoint before is taken."""
  folder = saved.directory / "8"
  path = largest_file(folder / "state") if what == "data" else folder / what
  os.truncate(path, path.stat().st_size // 2)
  with pytest.MonkeyPatch.context() as off:
    off.setattr(checkpoint, "verify", lambda folder: None)
    with pytest.raises(ValueError) as error:
      saved.restore(TREE)
  # A wrong reason, or a traceback.
  if what == "data":
    assert "is intact, but orbax" in str(error.value)
  else:
    assert error.type is json.JSONDecodeError
  assert saved.restore(TREE)[0] == 6


def test_fault_8_an_empty_folder_would_be_the_newest_step(saved):
  """Remedy: what has no manifest is no checkpoint. Fault 2 is the same."""
  (saved.directory / "9").mkdir()
  naive = lambda self: sorted(
    int(p.name) for p in self.directory.iterdir() if p.name.isdigit()
  )
  with pytest.MonkeyPatch.context() as off:
    off.setattr(Checkpoints, "steps", naive)
    off.setattr(checkpoint, "verify", lambda folder: None)
    with pytest.raises(FileNotFoundError):
      saved.restore(TREE)
  assert saved.restore(TREE)[0] == 8


def test_fault_2_a_half_written_folder_would_be_restored(saved):
  """Remedy: the manifest is written last, and read first."""
  shutil.copytree(saved.directory / "8", saved.directory / "9")
  os.truncate(largest_file(saved.directory / "9"), 100)
  with pytest.MonkeyPatch.context() as off:
    off.setattr(checkpoint, "verify", lambda folder: None)
    with pytest.raises(UserError, match=r"orbax-checkpoint .* cannot read it"):
      saved.restore(TREE)
  assert saved.restore(TREE)[0] == 8


def test_fault_9_orbax_casts_to_the_template_without_a_word(saved):
  """Remedy: names, shapes and types are compared first."""
  half = {"w": TREE["w"].astype(jnp.bfloat16)}
  with pytest.MonkeyPatch.context() as off:
    off.setattr(checkpoint, "differences", lambda *args: [])
    _, tree, _ = saved.restore(half)
    assert tree["w"].dtype == jnp.bfloat16
    assert not np.array_equal(tree["w"].astype(np.float32), TREE["w"])
  with pytest.raises(UserError, match="w is float32"):
    saved.restore(half)


def test_fault_10_orbax_asks_for_the_devices_of_the_save(tmp_path, borrow):
  """Remedy: every array of the template is given a sharding."""
  code = borrow("runtime/test_checkpoint_machine.py", "DEVICES")
  flags = "--xla_force_host_platform_device_count=8"
  subprocess.run(
    [sys.executable, "-c", code, str(tmp_path), "save", "8"],
    env={**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"},
    cwd=ROOT,
    check=True,
    timeout=120,
  )
  template = jax.eval_shape(
    lambda: {"x": jnp.zeros(16), "w": jnp.zeros(3), "key": jax.random.key(0)}
  )

  def without(leaf):
    leaf = jax.eval_shape(jax.random.key_data, leaf) if is_key(leaf) else leaf
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype)

  saved = Checkpoints(tmp_path)
  with pytest.MonkeyPatch.context() as off:
    off.setattr(checkpoint, "restore_target", without)
    with pytest.raises(CheckpointError, match="cannot read it"):
      saved.restore(template)
  np.testing.assert_array_equal(saved.restore(template)[1]["x"], np.arange(16))


def test_fault_1_episodes_of_the_future_would_be_learned_from(tmp_path):
  """Remedy: the checkpoint holds the replay's cursor."""
  episode = Episode(
    image=np.zeros((4, 2, 2, 3), np.uint8),
    action=np.zeros((4, 1), np.float32),
    reward=np.zeros(4, np.float32),
  )
  before = Replay((2, 2, 3), 1, folder=tmp_path)
  for _ in range(5):
    before.add(episode)
  files = len(list(tmp_path.glob("*.npz")))
  without, with_cursor = (Replay((2, 2, 3), 1, folder=tmp_path) for _ in "ab")
  without.load(files)
  assert len(without) == 5
  with_cursor.load(3)
  assert len(with_cursor) == 3 and len(list(tmp_path.glob("*.npz"))) == 3


def test_fault_13_a_torn_line_would_swallow_the_next_row(tmp_path):
  """Remedy: it is dropped before anything is appended."""
  text = '{"step": 1}\n{"step": 2, "lo'

  def resume():
    (tmp_path / "metrics.jsonl").write_text(text)
    with MetricsWriter(tmp_path, tensorboard=False) as writer:
      writer.write({"step": 2})
      writer.write({"step": 3})

  with pytest.MonkeyPatch.context() as off:
    off.setattr(metrics, "_drop_torn_line", lambda path: None)
    resume()
  with pytest.warns(UserWarning, match="left out line 2"):
    assert [row["step"] for row in read_metrics(tmp_path)] == [1, 3]
  resume()
  assert [row["step"] for row in read_metrics(tmp_path)] == [1, 2, 3]


def test_fault_22_another_config_would_go_on_with_the_episodes(
  toy_fit, tmp_path
):
  """Remedy: the folder's config is compared with the one that is wanted."""
  toy_fit(tmp_path, "train.max_episodes=3", "seed=1")
  first = tmp_path / "episodes" / "000000.npz"
  before = first.read_bytes()
  with pytest.raises(UserError, match="another config"):
    toy_fit(tmp_path, "seed=2")
  assert read_config(tmp_path).seed == 1
  with pytest.MonkeyPatch.context() as off:
    off.setattr(run_folder, "changes", lambda found, wanted: [])
    result = toy_fit(tmp_path, "seed=2")
  # A run of seed 2, as its config says, with the episodes of seed 1.
  assert result["exit_code"] == 0 and result["episodes"] == 5
  assert read_config(tmp_path).seed == 2 and first.read_bytes() == before
  toy_fit(tmp_path / "alone", "seed=2")
  alone = tmp_path / "alone" / "episodes" / "000000.npz"
  assert alone.read_bytes() != before


def test_fault_23_two_runs_would_share_a_folder(tmp_path):
  """Remedy: a lock that the system takes back when its holder is gone."""
  open_rows = lambda: MetricsWriter(tmp_path, tensorboard=False)
  with pytest.MonkeyPatch.context() as off:
    off.setattr(fcntl, "flock", lambda *args: None)
    first, second = FolderLock(tmp_path), FolderLock(tmp_path)
    with open_rows() as one, open_rows() as two:
      one.write({"step": 1})
      two.truncate_after("step", 0)
      # Into a file that has no name any more.
      one.write({"step": 2})
    assert read_metrics(tmp_path) == []
    first.release()
    second.release()
  # A lock by the number of a process would now be stale: it names this one.
  first = FolderLock(tmp_path)
  with pytest.raises(UserError, match="in use by process"):
    FolderLock(tmp_path)
  first.release()
