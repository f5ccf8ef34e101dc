"""Replay: what is drawn, what is kept, what survives on disk."""

import re

import numpy as np
import pytest
from scipy import stats

from jlejepa.runtime.errors import UserError
from jplanet.replay import Episode, Replay

SHAPE, ACTIONS = (2, 2, 3), 2


def make_episode(entries, mark=0):
  """Marks every entry: reward = t, action = (t, -t), image = (mark, t)."""
  t = np.arange(entries, dtype=np.float32)
  image = np.zeros((entries, *SHAPE), np.uint8)
  image[..., 0], image[..., 1] = mark, (t % 256)[:, None, None]
  return Episode(image, np.stack([t, -t], -1), t)


def make_replay(*episodes, **options):
  replay = Replay(SHAPE, ACTIONS, **options)
  for episode in episodes:
    replay.add(episode)
  return replay


def test_offsets_are_uniform_and_the_last_one_included():
  # An episode of 125 decisions has 126 entries, so that a chunk of 50 starts
  # at 0 to 76: 77 places.
  replay = make_replay(make_episode(126))
  batch = replay.sample(np.random.default_rng(0), 7700, 50)
  counts = np.bincount(batch.reward[:, 0].astype(int), minlength=77)
  assert len(counts) == 77 and counts.min() > 0
  assert stats.chisquare(counts).pvalue > 1e-3


def test_episodes_are_uniform_whatever_their_length():
  lengths = [5, 50, 500]
  replay = make_replay(*[make_episode(n, i) for i, n in enumerate(lengths)])
  batch = replay.sample(np.random.default_rng(1), 3000, 5)
  counts = np.bincount(batch.image[:, 0, 0, 0, 0], minlength=3)
  assert stats.chisquare(counts).pvalue > 1e-3


def test_chunks_are_aligned_and_never_cross_an_end():
  replay = make_replay(*[make_episode(n, n) for n in (7, 9, 11)])
  batch = replay.sample(np.random.default_rng(2), 200, 6)
  assert batch.image.shape == (200, 6, *SHAPE)
  assert batch.action.shape == (200, 6, ACTIONS)
  marks, times = batch.image[..., 0, 0, 0], batch.image[..., 0, 0, 1]
  np.testing.assert_array_equal(marks, marks[:, :1].repeat(6, 1))
  np.testing.assert_array_equal(np.diff(times.astype(int)), 1)
  np.testing.assert_array_equal(batch.reward, times)
  np.testing.assert_array_equal(batch.action[..., 0], times)
  np.testing.assert_array_equal(batch.action[..., 1], -batch.reward)
  assert (times < marks).all()


def test_the_same_generator_draws_the_same_chunks():
  replay = make_replay(make_episode(30), make_episode(20))
  one, two = (
    replay.sample(np.random.default_rng([3, 4]), 8, 5) for _ in range(2)
  )
  for a, b in zip(one, two):
    np.testing.assert_array_equal(a, b)


def test_a_chunk_may_be_a_whole_episode_and_no_longer():
  replay = make_replay(make_episode(6))
  batch = replay.sample(np.random.default_rng(0), 3, 6)
  np.testing.assert_array_equal(batch.reward, np.tile(np.arange(6), (3, 1)))
  with pytest.raises(ValueError, match="chunk of 7 entries is longer than"):
    replay.sample(np.random.default_rng(0), 3, 7)
  with pytest.raises(ValueError, match="empty replay"):
    make_replay().sample(np.random.default_rng(0), 1, 1)


def test_an_episode_that_was_cut_short_is_kept_and_never_drawn():
  replay = make_replay(make_episode(3, mark=1), make_episode(9, mark=2))
  batch = replay.sample(np.random.default_rng(0), 50, 5)
  assert (batch.image[..., 0] == 2).all() and len(replay) == 2


def test_the_oldest_leave_when_the_bytes_run_out():
  one = make_episode(10).nbytes
  # 10 entries of 12 bytes of image, 8 of action and 4 of reward.
  assert one == 10 * (12 + 8 + 4)
  episodes = [make_episode(10, mark) for mark in range(5)]
  replay = make_replay(*episodes, max_bytes=3 * one)
  assert [e.image[0, 0, 0, 0] for e in replay.episodes] == [2, 3, 4]
  assert replay.nbytes == 3 * one and replay.added == 5
  # The newest stays, even where it does not fit.
  assert len(make_replay(*episodes, max_bytes=1)) == 1


def test_files_give_the_episodes_back(tmp_path):
  episodes = [make_episode(n, n) for n in (4, 5, 6)]
  make_replay(*episodes, folder=tmp_path)
  again = Replay(SHAPE, ACTIONS, folder=tmp_path)
  assert again.load(3) == []
  for before, after in zip(episodes, again.episodes):
    for name in Episode._fields:
      a, b = getattr(before, name), getattr(after, name)
      assert a.dtype == b.dtype
      np.testing.assert_array_equal(a, b)
  # Numbering goes on behind what was loaded.
  again.add(make_episode(7))
  assert sorted(p.name for p in tmp_path.iterdir()) == [
    f"{i:06d}.npz" for i in range(4)
  ]


def test_episodes_of_the_future_are_set_aside(tmp_path):
  make_replay(*[make_episode(4, i) for i in range(5)], folder=tmp_path)
  replay = Replay(SHAPE, ACTIONS, folder=tmp_path)
  assert replay.load(3) == [] and len(replay) == 3 and replay.added == 3
  aside = sorted(p.name for p in (tmp_path / "aside").iterdir())
  assert aside == ["000003.npz", "000004.npz"]


def test_a_damaged_episode_is_set_aside_and_the_others_keep_their_place(
  tmp_path,
):
  make_replay(*[make_episode(4, i) for i in range(20)], folder=tmp_path)
  path = tmp_path / "000007.npz"
  path.write_bytes(path.read_bytes()[:100])
  replay = Replay(SHAPE, ACTIONS, folder=tmp_path)
  (line,) = replay.load(20)
  assert line.startswith("000007.npz: ")
  assert len(replay) == 19 and replay.added == 20
  assert (tmp_path / "aside" / "000007.npz").exists()
  # What is lost stays lost: a second resume says so and goes on.
  again = Replay(SHAPE, ACTIONS, folder=tmp_path)
  assert len(again.load(20)) == 1 and len(again) == 19


def test_a_whole_file_of_another_episode_is_found_out(tmp_path):
  episodes = [make_episode(4, i) for i in range(20)]
  before = make_replay(*episodes, folder=tmp_path)
  path = tmp_path / "000007.npz"
  intact = path.read_bytes()
  # One number of thousands, in an archive with right checksums.
  other = episodes[7]._replace(reward=episodes[7].reward + np.float32(1e-3))
  np.savez_compressed(path, **other._asdict())
  again = Replay(SHAPE, ACTIONS, folder=tmp_path)
  (line,) = again.load(20, before.digests)
  assert line == "000007.npz: not the episode that was written"
  assert len(again) == 19 and again.digests == before.digests
  path.write_bytes(intact)
  assert Replay(SHAPE, ACTIONS, folder=tmp_path).load(20, again.digests) == []


def test_too_much_damage_is_an_error(tmp_path):
  make_replay(*[make_episode(4) for _ in range(5)], folder=tmp_path)
  (tmp_path / "000001.npz").unlink()
  with pytest.raises(UserError, match=r"1 of 5 episodes .* 000001.npz"):
    Replay(SHAPE, ACTIONS, folder=tmp_path).load(5)


@pytest.mark.filterwarnings("ignore")
def test_pickles_are_never_opened(tmp_path):
  make_replay(*[make_episode(4) for _ in range(20)], folder=tmp_path)

  class Bomb:
    def __reduce__(self):
      return (tmp_path.joinpath("exploded").touch, ())

  good = make_episode(4)
  np.savez(
    tmp_path / "000003.npz",
    image=good.image,
    action=np.array([Bomb()], object),
    reward=good.reward,
  )
  (line,) = Replay(SHAPE, ACTIONS, folder=tmp_path).load(20)
  assert "000003.npz" in line
  assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize(
  "change, words",
  [
    (dict(image=np.zeros((4, 3, 2, 3), np.uint8)), "'image': expected uint8"),
    (dict(image=np.zeros((4, *SHAPE))), "'image': expected uint8"),
    (dict(action=np.zeros((4, 1), np.float32)), "'action': expected float32"),
    (dict(reward=np.zeros(3, np.float32)), "'reward': expected float32"),
    (dict(reward=np.full(4, np.nan, np.float32)), "'reward' .* not finite"),
    (dict(action=np.full((4, 2), np.inf, np.float32)), "'action' .* not fin"),
  ],
)
def test_what_does_not_fit_is_refused(change, words, tmp_path):
  replay = Replay(SHAPE, ACTIONS, folder=tmp_path)
  with pytest.raises(ValueError, match=words):
    replay.add(make_episode(4)._replace(**change))
  assert len(replay) == 0 and not list(tmp_path.iterdir())


@pytest.mark.parametrize(
  "change, words",
  [
    (dict(image=None), "no item named 'image.npy'"),
    (dict(action=None), "no item named 'action.npy'"),
    (dict(reward=None), "no item named 'reward.npy'"),
    (dict(reward=np.float32([0, 1, np.nan, 1])), "'reward' .* not finite"),
    (dict(action=np.full((4, 2), -np.inf, np.float32)), "'action' .* not fin"),
    (dict(action=np.zeros((4, 2))), "'action': expected float32"),
    (dict(image=np.zeros((3, *SHAPE), np.uint8)), "expected float32 .3, 2"),
  ],
)
def test_a_file_that_does_not_fit_is_set_aside(change, words, tmp_path):
  """Whole archives with right checksums, of other programs."""
  make_replay(*[make_episode(4) for _ in range(20)], folder=tmp_path)
  path = tmp_path / "000003.npz"
  fields = make_episode(4)._asdict() | change
  np.savez(path, **{k: v for k, v in fields.items() if v is not None})
  replay = Replay(SHAPE, ACTIONS, folder=tmp_path)
  (line,) = replay.load(20)
  assert line.startswith("000003.npz: ") and re.search(words, line)
  assert (len(replay), replay.added) == (19, 20)
  assert (tmp_path / "aside" / "000003.npz").exists() and not path.exists()


def test_a_reset_alone_is_no_episode():
  with pytest.raises(ValueError, match="at least 2 entries"):
    make_replay(make_episode(1))
