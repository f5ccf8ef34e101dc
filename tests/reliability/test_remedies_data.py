"""Remedies switched off: episodes, images, configs and other input."""

import zipfile

import jax
import numpy as np
import pytest
from PIL import Image

from jlejepa.data import dataset, folders, from_arrays, load_dataset, reading
from jlejepa.data.decoding import BadImage
from jlejepa.runtime.errors import UserError
from jlejepa.runtime.metrics import read_metrics
from jplanet import check, replay, world_model
from jplanet.replay import Episode, Replay
from jplanet.types import Batch

SHAPE = (4, 4, 3)


class Never(BadImage):
  """Takes the place of `BadImage` where its handler is switched off."""


def make_episode(value, length=6):
  return Episode(
    image=np.full((length, *SHAPE), value, np.uint8),
    action=np.full((length, 1), value / 100, np.float32),
    reward=np.full(length, value, np.float32),
  )


@pytest.fixture
def stored(tmp_path):
  """Twenty episodes in a folder, each of one number."""
  before = Replay(SHAPE, 1, folder=tmp_path)
  for value in range(20):
    before.add(make_episode(value))
  return before


def again(stored):
  return Replay(SHAPE, 1, folder=stored.folder)


def test_fault_11_another_episode_would_be_learned_from(stored):
  """Remedy: the checkpoint has the SHA-256 of every episode."""
  path = stored.folder / "000007.npz"
  path.write_bytes((stored.folder / "000008.npz").read_bytes())
  without = again(stored)
  assert without.load(20) == []
  assert without.episodes[7].reward[0] == 8
  found = again(stored)
  assert len(found.load(20, stored.digests)) == 1
  assert [e.reward[0] for e in found.episodes][6:8] == [6, 8]


def test_fault_11_one_cut_episode_would_end_every_resume(stored):
  """Remedy: what cannot be read is set aside, and the rest goes on."""
  path = stored.folder / "000007.npz"
  path.write_bytes(path.read_bytes()[:100])

  def naive(path, image_shape, action_dim):
    with np.load(path) as arrays:
      return Episode(**arrays)

  with pytest.MonkeyPatch.context() as off:
    off.setattr(replay, "read_episode", naive)
    with pytest.raises(zipfile.BadZipFile):
      again(stored).load(20)
  found = again(stored)
  assert len(found.load(20)) == 1 and len(found) == 19


@pytest.fixture
def animals(tmp_path):
  for number, name in enumerate(("cat", "dog")):
    for i in range(5):
      path = tmp_path / name / f"{i}.png"
      path.parent.mkdir(exist_ok=True)
      pixels = np.full((6, 8, 3), 100 * number + i, np.uint8)
      Image.fromarray(pixels).save(path)
  return tmp_path


def test_fault_11_one_bad_image_would_end_the_loading(animals):
  """Remedy: it is left out, and named."""
  (animals / "cat" / "1.png").write_text("no image")
  with pytest.MonkeyPatch.context() as off:
    off.setattr(folders, "BadImage", Never)
    with pytest.raises(BadImage):
      load_dataset(animals, holdout=0)
  found = load_dataset(animals, holdout=0)
  assert len(found.images) == 9 and len(found.left_out) == 1


def test_fault_11_an_image_damaged_later_would_end_the_training(
  animals, monkeypatch
):
  """Remedy: another image of its class stands in for it."""
  monkeypatch.setattr(reading, "EAGER_PIXELS", 0)
  images = load_dataset(animals, holdout=0).images
  (animals / "dog" / "1.png").write_text("no image any more")
  with pytest.MonkeyPatch.context() as off:
    off.setattr(reading, "BadImage", Never)
    with pytest.raises(BadImage):
      images[[5, 6]]
  assert images[[5, 6]][:, 0, 0, 0].tolist() == [100, 102]


def test_fault_12_floats_for_pixels_would_be_stored_and_turn_black(tmp_path):
  """Remedy: an episode is checked before it is added."""
  light = make_episode(200)
  light = light._replace(image=light.image / np.float32(255))
  rng = np.random.default_rng(0)
  with pytest.MonkeyPatch.context() as off:
    off.setattr(replay, "check_episode", lambda *args: None)
    without = Replay(SHAPE, 1)
    without.add(light)
    assert not without.sample(rng, 3, 2).image.any()
  with pytest.raises(ValueError, match="'image': expected uint8"):
    Replay(SHAPE, 1).add(light)


def test_fault_12_a_nan_on_the_disk_would_be_learned_from(stored):
  """Remedy: an episode is checked after it is read."""
  episode = make_episode(7)
  episode.reward[2] = np.nan
  np.savez(stored.folder / "000007.npz", **episode._asdict())
  rng, without = np.random.default_rng(0), again(stored)
  with pytest.MonkeyPatch.context() as off:
    off.setattr(replay, "check_episode", lambda *args: None)
    assert without.load(20) == []
  assert np.isnan(without.sample(rng, 200, 4).reward).any()
  found = again(stored)
  assert len(found.load(20)) == 1
  assert np.isfinite(found.sample(rng, 200, 4).reward).all()


def test_fault_20_a_learning_rate_of_nan_would_end_as_a_run(toy_fit, tmp_path):
  """Remedy: every value is checked; no gradient shows this one."""
  change = lambda config: setattr(config.optimizer, "learning_rate", np.nan)
  with pytest.MonkeyPatch.context() as off:
    off.setattr(check, "validate", lambda config, schema: None)
    result = toy_fit(tmp_path / "off", change=change)
  assert result["exit_code"] == 0
  assert np.isnan(read_metrics(tmp_path / "off")[-1]["loss"])
  # One update gave the weights nan, and those after it were skipped.
  assert result["skipped_total"] == result["updates"] - 1 == 8
  with pytest.raises(UserError, match="learning_rate must be a finite"):
    toy_fit(tmp_path / "on", change=change)


def test_fault_20_too_many_elites_would_be_found_out_when_planning(
  toy_fit, tmp_path
):
  """Remedy: the planner is traced before anything starts."""
  with pytest.MonkeyPatch.context() as off:
    off.setattr(check, "check_planner", lambda config: None)
    with pytest.raises(ValueError, match="elites=9") as error:
      toy_fit(tmp_path / "off", "planner.cem.elites=9")
  assert not isinstance(error.value, UserError)
  # The seed episodes were played first.
  assert len(list((tmp_path / "off" / "episodes").glob("*.npz"))) == 2
  with pytest.raises(UserError, match="elites=9"):
    toy_fit(tmp_path / "on", "planner.cem.elites=9")
  assert not (tmp_path / "on").exists()


@pytest.mark.filterwarnings("ignore:invalid value")
@pytest.mark.parametrize("bad", [np.nan, 200.0])
def test_fault_21_images_out_of_range_would_become_others(bad):
  """Remedy: arrays are checked where they come in."""
  images = np.full((4, 6, 6, 3), 0.5, np.float32)
  images[2, 3, 3] = bad
  with pytest.MonkeyPatch.context() as off:
    off.setattr(dataset, "require", lambda condition, message: None)
    found = from_arrays(images).images
  # Bytes without a trace of what they were made of.
  assert found.dtype == np.uint8 and found[0, 0, 0, 0] == 128
  assert found[2, 3, 3, 0] not in (200, 255)
  with pytest.raises(UserError, match=r"not finite|scale them to \[0, 1\]"):
    from_arrays(images)


def test_fault_21_rewards_of_one_chunk_would_be_those_of_all(tiny_config):
  """Remedy: the model's functions look at what they are given."""
  make = lambda: world_model.make_planet(
    tiny_config(), action_dim=1, image_size=8
  )
  with pytest.MonkeyPatch.context() as off:
    off.setattr(world_model, "checked", lambda model, **sizes: model)
    without = make()
  key = jax.random.key(0)
  params = jax.eval_shape(without.init, key)
  loss = lambda model, batch: jax.eval_shape(model.loss, params, batch, key)
  batch = Batch(
    image=np.zeros((3, 6, 8, 8, 3), np.uint8),
    action=np.zeros((3, 6, 1), np.float32),
    reward=np.zeros(6, np.float32),
  )
  assert loss(without, batch)[0].shape == ()
  with pytest.raises(ValueError, match=r"reward must be float32 \[B, T\]"):
    loss(make(), batch)


class Bomb:
  def __init__(self, path):
    self.path = path

  def __reduce__(self):
    return open, (str(self.path), "w")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("place", ["episode", "archive"])
def test_fault_28_a_pickle_would_be_executed(place, stored, tmp_path):
  """Remedy: NumPy is told to read no pickles, wherever it reads."""
  mark, bombs = tmp_path / "mark", np.array([Bomb(tmp_path / "mark")] * 6)

  def read():
    if place == "episode":
      fields = make_episode(3)._asdict() | {"action": bombs}
      np.savez(stored.folder / "000003.npz", **fields)
      assert len(again(stored).load(20)) == 1
    else:
      np.savez(tmp_path / "archive.npz", images=bombs)
      with pytest.raises(UserError):
        load_dataset(tmp_path / "archive.npz")

  real = np.lib.format.read_array
  naive = lambda file, allow_pickle: real(file, allow_pickle=True)
  with pytest.MonkeyPatch.context() as off:
    off.setattr(np.lib.format, "read_array", naive)
    read()
  assert mark.exists()
  mark.unlink()
  read()
  assert not mark.exists()
