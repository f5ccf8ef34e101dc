"""What happens without a remedy: the faults are real, and found by their tests.

Each test switches one remedy off, sees the fault do its harm, and sees none
with the remedy back on.
"""

import fcntl
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jplanet.learner
from jlejepa.runtime import checkpoint, metrics
from jlejepa.runtime.checkpoint import Checkpoints
from jlejepa.runtime.errors import UserError
from jlejepa.runtime.lock import FolderLock
from jlejepa.runtime.metrics import MetricsWriter, read_metrics
from jplanet.replay import Episode, Replay
from jplanet.types import WorldModel

TREE = {"w": np.linspace(0, 1, 4000, dtype=np.float32)}


@pytest.fixture
def saved(tmp_path):
  checkpoints = Checkpoints(tmp_path / "checkpoints")
  checkpoints.save(6, TREE)
  checkpoints.save(8, TREE)
  return checkpoints


def flip(path, position):
  data = bytearray(path.read_bytes())
  data[position] ^= 1
  path.write_bytes(data)


def test_fault_7_orbax_restores_a_flipped_bit_without_a_word(saved, tmp_path):
  """Remedy: the checksum of every file."""
  state = saved.directory / "8" / "state"
  data = max(state.rglob("*"), key=lambda p: p.is_file() and p.stat().st_size)
  intact, silent = data.read_bytes(), 0
  for position in np.linspace(1, len(intact) - 1, 40, dtype=int):
    flip(data, position)
    with pytest.MonkeyPatch.context() as off:
      off.setattr(checkpoint, "_verify", lambda folder: None)
      try:
        step, tree, _ = saved.restore(TREE)
        silent += step == 8 and not np.array_equal(tree["w"], TREE["w"])
      except UserError:
        pass  # Orbax does see some.
    step, tree, _ = saved.restore(TREE)
    assert step == 6 and np.array_equal(tree["w"], TREE["w"])
    data.write_bytes(intact)
  assert silent > 5


def test_fault_8_an_empty_folder_would_be_the_newest_step(saved):
  """Remedy: what has no manifest is no checkpoint. Fault 2 is the same."""
  (saved.directory / "9").mkdir()
  naive = lambda self: sorted(
    int(p.name) for p in self.directory.iterdir() if p.name.isdigit()
  )
  with pytest.MonkeyPatch.context() as off:
    off.setattr(Checkpoints, "steps", naive)
    off.setattr(checkpoint, "_verify", lambda folder: None)
    with pytest.raises(FileNotFoundError):
      saved.restore(TREE)
  assert saved.restore(TREE)[0] == 8


def test_fault_2_a_half_written_folder_would_be_restored(saved):
  """Remedy: the manifest is written last, and read first."""
  folder = saved.directory / "8"
  shutil.copytree(folder, saved.directory / "9")
  largest = max(
    (saved.directory / "9").rglob("*"),
    key=lambda p: p.is_file() and p.stat().st_size,
  )
  largest.write_bytes(largest.read_bytes()[:100])
  with pytest.MonkeyPatch.context() as off:
    off.setattr(checkpoint, "_verify", lambda folder: None)
    with pytest.raises(UserError, match=r"orbax-checkpoint .* cannot read it"):
      saved.restore(TREE)
  assert saved.restore(TREE)[0] == 8


def test_fault_9_orbax_casts_to_the_template_without_a_word(saved):
  """Remedy: names, shapes and types are compared first."""
  half = {"w": TREE["w"].astype(jnp.bfloat16)}
  with pytest.MonkeyPatch.context() as off:
    off.setattr(checkpoint, "_compare", lambda *args: None)
    _, tree, _ = saved.restore(half)
    assert tree["w"].dtype == jnp.bfloat16
    assert not np.array_equal(tree["w"].astype(np.float32), TREE["w"])
  with pytest.raises(UserError, match="w is float32"):
    saved.restore(half)


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


def test_fault_14_one_bad_gradient_would_end_the_weights():
  """Remedy: what is not finite is left out in the compiled step."""

  def loss(params, batch, key):
    value = 0.5 * jnp.square(params["w"] - batch).sum()
    return value, {"loss": value}

  model = WorldModel(
    **dict.fromkeys(WorldModel._fields)
    | dict(init=lambda key, images: {"w": jnp.zeros(2)}, loss=loss)
  )
  adam, key = optax.adam(0.1), jax.random.key(0)

  def train():
    state = jplanet.learner.init_state(key, model, adam)
    step = jax.jit(jplanet.learner.make_train_step(model, adam))
    for batch in ([1.0, 2.0], [jnp.nan, 0.0], [1.0, 2.0]):
      state, _ = step(state, jnp.array(batch), key)
    return np.asarray(state.params["w"])

  with pytest.MonkeyPatch.context() as off:
    off.setattr(jplanet.learner, "keep_finite", lambda finite, new, old: new)
    assert np.isnan(train()).any()
  assert np.isfinite(train()).all()


def test_fault_23_two_runs_would_share_a_folder(tmp_path):
  """Remedy: a lock that the system takes back when its holder is gone."""
  with pytest.MonkeyPatch.context() as off:
    off.setattr(fcntl, "flock", lambda *args: None)
    FolderLock(tmp_path).release()
    first, second = FolderLock(tmp_path), FolderLock(tmp_path)
    first.release()
    second.release()
  # A lock by the number of a process would now be stale: it names this one.
  first = FolderLock(tmp_path)
  with pytest.raises(UserError, match="in use by process"):
    FolderLock(tmp_path)
  first.release()
