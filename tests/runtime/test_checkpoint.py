import os
import shutil
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest

from jlejepa.runtime import checkpoint, manifest
from jlejepa.runtime.checkpoint import CheckpointError, Checkpoints
from jlejepa.runtime.errors import UserError


class State(NamedTuple):
  params: dict
  opt: object
  key: jax.Array
  keys: jax.Array
  count: jax.Array
  host: np.ndarray
  big: np.int64
  step: int
  rate: float
  flag: bool


def make_state(seed=0):
  key = jax.random.key(seed)
  params = {
    "cell": {"kernel": jax.random.normal(key, (5, 7)), "bias": jnp.zeros(7)},
    "half": jax.random.normal(key, (3,), jnp.bfloat16),
  }
  return State(
    params=params,
    opt=optax.adam(1e-3).init(params),
    key=jax.random.key(seed + 1),
    keys=jax.random.split(jax.random.key(seed, impl="rbg"), 3),
    count=jnp.int32(3),
    host=np.arange(4, dtype=np.int64),
    big=np.int64(2**40 + seed),
    step=7 + seed,
    rate=0.1,
    flag=True,
  )


def raw(leaf):
  is_key = isinstance(leaf, jax.Array) and jax.dtypes.issubdtype(
    leaf.dtype, jax.dtypes.prng_key
  )
  return np.asarray(jax.random.key_data(leaf) if is_key else leaf)


def assert_same(got, wanted):
  assert jax.tree.structure(got) == jax.tree.structure(wanted)
  for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(wanted)):
    assert isinstance(a, type(b))
    assert getattr(a, "dtype", None) == getattr(b, "dtype", None)
    np.testing.assert_array_equal(raw(a), raw(b))


def largest_file(folder):
  files = [path for path in folder.rglob("*") if path.is_file()]
  return max(files, key=lambda path: path.stat().st_size)


@pytest.fixture
def saved(tmp_path):
  checkpoints = Checkpoints(tmp_path / "checkpoints")
  checkpoints.save(6, make_state(0), {"episode": 1})
  checkpoints.save(8, make_state(1), {"episode": 2})
  return checkpoints


def test_state_comes_back_bit_for_bit_with_its_kinds(saved):
  step, state, extra = saved.restore(make_state(5))
  assert (step, extra) == (8, {"episode": 2})
  assert_same(state, make_state(1))


def test_restored_keys_give_the_same_random_numbers(saved):
  _, state, _ = saved.restore(make_state(5))
  wanted = jax.random.uniform(make_state(1).keys[1], (3,))
  np.testing.assert_array_equal(jax.random.uniform(state.keys[1], (3,)), wanted)


def test_shapes_alone_are_a_template(saved):
  def arrays(state):
    return {"p": state.params, "k": state.key, "o": state.opt}

  state = arrays(make_state(3))
  saved.save(9, state)
  template = jax.eval_shape(lambda: state)
  assert_same(saved.restore(template)[1], state)


def test_nothing_saved_restores_nothing(tmp_path):
  assert Checkpoints(tmp_path / "none").restore({"a": 1}) is None
  assert Checkpoints(tmp_path).restore({"a": 1}) is None


def test_only_the_newest_are_kept(tmp_path):
  checkpoints = Checkpoints(tmp_path, keep=2)
  for step in (1, 2, 10, 11):
    checkpoints.save(step, {"a": np.ones(2)})
  assert checkpoints.steps() == [10, 11]
  assert sorted(os.listdir(tmp_path)) == ["10", "11"]


def test_extra_carries_numpy_numbers_and_generator_state(tmp_path):
  checkpoints = Checkpoints(tmp_path)
  rng = np.random.default_rng(3)
  extra = {"n": np.int64(2), "a": np.arange(2), "rng": rng.bit_generator.state}
  checkpoints.save(0, {"a": 1}, extra)
  _, _, got = checkpoints.restore({"a": 1})
  assert (got["n"], got["a"]) == (2, [0, 1])
  again = np.random.default_rng(0)
  again.bit_generator.state = got["rng"]
  assert again.random() == rng.random()


def test_relative_directory_works(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  Checkpoints("a b").save(1, {"a": 1})
  assert Checkpoints(tmp_path / "a b").restore({"a": 0})[1] == {"a": 1}


def flip_one_bit(path):
  data = bytearray(path.read_bytes())
  data[len(data) // 2] ^= 1
  path.write_bytes(data)


def truncate(path):
  os.truncate(path, path.stat().st_size // 2)


@pytest.mark.parametrize("damage", [flip_one_bit, truncate, os.remove])
@pytest.mark.parametrize("which", ["data", "extra.json", "state/_METADATA"])
def test_damage_falls_back_to_the_step_before(saved, capsys, damage, which):
  folder = saved.directory / "8"
  damage(largest_file(folder / "state") if which == "data" else folder / which)
  step, state, extra = saved.restore(make_state(5))
  assert (step, extra) == (6, {"episode": 1})
  assert_same(state, make_state(0))
  (line,) = capsys.readouterr().err.splitlines()
  assert "checkpoints/8 is damaged" in line


@pytest.mark.parametrize("text", ["", "{", "[]", '{"files": 3}', "{}"])
def test_damaged_manifest_falls_back(saved, text):
  (saved.directory / "8" / "manifest.json").write_text(text)
  assert saved.restore(make_state())[0] == 6


def test_bit_flip_in_the_manifest_falls_back_or_changes_nothing(saved):
  path = saved.directory / "8" / "manifest.json"
  intact = path.read_bytes()
  for position in np.random.default_rng(0).integers(0, len(intact), 25):
    data = bytearray(intact)
    data[position] ^= 4
    path.write_bytes(data)
    step, state, _ = saved.restore(make_state())
    assert step in (6, 8)
    assert_same(state, make_state(0 if step == 6 else 1))


def test_no_intact_checkpoint_is_an_error_and_no_fresh_start(saved):
  for step in ("6", "8"):
    flip_one_bit(largest_file(saved.directory / step))
  with pytest.raises(CheckpointError, match=r"damaged \(steps 6, 8\)"):
    saved.restore(make_state())


def test_run_goes_on_over_a_damaged_later_step(saved):
  flip_one_bit(largest_file(saved.directory / "8"))
  saved.save(7, make_state(2))
  assert saved.steps() == [6, 7]
  saved.save(8, make_state(3))
  assert saved.restore(make_state())[0] == 8


def test_saving_a_step_again_replaces_it(saved):
  saved.save(8, make_state(4), {"episode": 9})
  step, state, extra = saved.restore(make_state())
  assert (step, extra) == (8, {"episode": 9})
  assert_same(state, make_state(4))


def test_foreign_and_unfinished_folders_are_ignored(saved):
  for name in ("20", "20.tmp", "notes", "21.orbax-checkpoint-tmp", "-3", "²"):
    (saved.directory / name).mkdir()
  (saved.directory / "22").write_text("a file")
  assert saved.steps() == [6, 8]
  assert saved.restore(make_state())[0] == 8
  saved.save(20, make_state())
  assert saved.restore(make_state())[0] == 20


@pytest.mark.parametrize(
  "change, message",
  [
    (
      dict(count=jnp.zeros(2, jnp.int32)),
      r"count is int32\[\], wanted int32\[2\]",
    ),
    (dict(count=jnp.float32(0)), r"count is int32\[\], wanted float32\[\]"),
    (dict(params={"cell": {}}), "params.cell.kernel is in it but not wanted"),
    (dict(params={"new": jnp.ones(1)}), "params.new is not in it"),
    (dict(key=jax.random.key(0, impl="rbg")), "key is key<fry>"),
    (dict(step=1.0), r"step is int\[\], wanted float\[\]"),
  ],
)
def test_template_that_differs_is_refused_by_name(saved, change, message):
  with pytest.raises(UserError, match=message) as error:
    saved.restore(make_state()._replace(**change))
  assert "\n" not in str(error.value)


def test_no_silent_cast_to_a_half_precision_template(saved):
  template = jax.tree.map(
    lambda x: x.astype(jnp.bfloat16) if x.dtype == jnp.float32 else x,
    make_state().params,
  )
  with pytest.raises(UserError, match=r"cell\.bias is float32"):
    saved.restore(make_state()._replace(params=template))


def test_entries_with_one_name_are_refused(tmp_path):
  state = {"a.b": np.ones(1), "a": {"b": np.ones(1)}}
  with pytest.raises(UserError, match=r"both named a\.b"):
    Checkpoints(tmp_path).save(0, state)


def test_failed_encoding_leaves_nothing_behind(saved):
  with pytest.raises(TypeError, match="cannot be written as JSON"):
    saved.save(9, make_state(), {"a": object()})
  assert sorted(os.listdir(saved.directory)) == ["6", "8"]


def test_every_moment_of_a_save_is_a_good_moment_to_die(tmp_path, monkeypatch):
  """Copies the folder before each thing that a save does to it."""
  folder, copies = tmp_path / "run", tmp_path / "copies"
  checkpoints = Checkpoints(folder)
  for step in (6, 8):
    checkpoints.save(step, make_state(step), {"step": step})
  moments = []

  def watch(owner, name):
    real = getattr(owner, name)

    def watched(*args, **kwargs):
      if folder.exists():
        moments.append(name)
        shutil.copytree(folder, copies / f"{len(moments)}")
      return real(*args, **kwargs)

    monkeypatch.setattr(owner, name, watched)

  watch(checkpoint.os, "replace")
  watch(checkpoint, "_remove")
  watch(manifest, "_hashes")
  watch(checkpoint, "atomic_write_json")
  watch(manifest, "atomic_write_json")
  checkpoints.save(10, make_state(10), {"step": 10})
  monkeypatch.undo()
  assert {"replace", "_remove", "_hashes", "atomic_write_json"} <= {*moments}
  for copy in copies.iterdir():
    again = Checkpoints(copy)
    step, state, extra = again.restore(make_state())
    assert step in (8, 10) and extra == {"step": step}
    assert_same(state, make_state(step))
    again.save(10, make_state(10), {"step": 10})
    assert sorted(os.listdir(copy)) == ["10", "8"]


def test_what_only_looks_like_ours_is_left_alone(saved):
  (saved.directory / "notes.tmp").write_text("mine")
  (saved.directory / "007").mkdir()
  (saved.directory / "007" / "manifest.json").write_text("{}")
  (saved.directory / "9.tmp").write_text("left by a killed process")
  assert saved.steps() == [6, 8]
  saved.save(9, make_state())
  assert {"notes.tmp", "007"} < {*os.listdir(saved.directory)}
  assert saved.steps() == [8, 9]


def test_an_orbax_that_cannot_read_intact_files_is_said(saved, monkeypatch):
  def refuse(*args, **kwargs):
    raise KeyError("another\nformat")

  monkeypatch.setattr(ocp.Checkpointer, "restore", refuse)
  with pytest.raises(CheckpointError, match=r"orbax-checkpoint .* cannot read"):
    saved.restore(make_state())
