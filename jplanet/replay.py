"""Episodes in memory and on disk, and chunks drawn from them.

An episode of `T` decisions has `T + 1` entries. Entry `t` is (the action that
led here, the observation here, the reward received on arriving here); entry 0
is the reset: a zero action, the first image, a zero reward. Gym-style data
`(o_t, a_t, r_{t+1})` must be shifted by one to fit.
"""

import hashlib
import io
import os
import zipfile
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jlejepa.runtime.errors import UserError
from jplanet.types import Batch


class Episode(NamedTuple):
  """`image` uint8 `[T+1, S, S, 3]`, `action` `[T+1, A]`, `reward` `[T+1]`."""

  image: np.ndarray
  action: np.ndarray
  reward: np.ndarray

  @property
  def nbytes(self) -> int:
    return self.image.nbytes + self.action.nbytes + self.reward.nbytes


def check_episode(
  episode: Episode, image_shape: tuple[int, ...], action_dim: int
) -> None:
  """Checks shapes, types and values of an episode.

  Raises:
    ValueError: naming the field, what was expected and what was found.
  """
  length = len(episode.image)
  expected = {
    "image": (np.uint8, (length, *image_shape)),
    "action": (np.float32, (length, action_dim)),
    "reward": (np.float32, (length,)),
  }
  for name, (dtype, shape) in expected.items():
    value = getattr(episode, name)
    if value.dtype != dtype or value.shape != shape:
      raise ValueError(
        f"episode field {name!r}: expected {np.dtype(dtype)} {shape}, got"
        f" {value.dtype} {value.shape}"
      )
    if dtype == np.float32 and not np.isfinite(value).all():
      raise ValueError(f"episode field {name!r} has values that are not finite")
  if length < 2:
    raise ValueError(f"an episode needs at least 2 entries, got {length}")


def read_episode(
  path: Path, image_shape: tuple[int, ...], action_dim: int
) -> Episode:
  """Reads an episode's file, and finds out any damage.

  `np.load` stops reading where an array ends, before the checksum of what was
  read is compared; here every byte counts.

  Raises:
    UserError: if the file is damaged, missing, or no episode.
  """
  # A pipe of that name would be waited for.
  if not path.is_file():
    raise UserError(f"{path.name}: no such file")
  arrays = {}
  try:
    with zipfile.ZipFile(path) as archive:
      for name in Episode._fields:
        file = io.BytesIO(archive.read(f"{name}.npy"))
        arrays[name] = np.lib.format.read_array(file, allow_pickle=False)
        if file.read(1):
          raise ValueError(f"{name} has bytes behind its end")
    episode = Episode(**arrays)
    check_episode(episode, image_shape, action_dim)
  except Exception as error:  # Zip, zlib, syntax, memory: all mean damage.
    reason = " ".join(f"{type(error).__name__}: {error}".split())
    raise UserError(f"{path.name}: {reason[:300]}") from error
  return episode


def digest(episode: Episode) -> str:
  """Returns the SHA-256 of an episode's fields, one after the other."""
  found = hashlib.sha256()
  for field in episode:
    found.update(np.ascontiguousarray(field))
  return found.hexdigest()


class Replay:
  """A store of episodes with a limit in bytes.

  Sampling is uniform over episodes, then over the offsets of a chunk within
  the episode (the last one included); a chunk never crosses an end. Episodes
  that end before they fill a chunk are kept and never drawn.
  """

  def __init__(
    self,
    image_shape: tuple[int, ...],
    action_dim: int,
    *,
    folder: str | os.PathLike | None = None,
    max_bytes: int = 8 * 2**30,
  ):
    """Makes an empty store.

    Args:
      image_shape: `(S, S, 3)`.
      action_dim: `A`.
      folder: where episodes are kept as `<number>.npz`; None keeps them in
        memory only.
      max_bytes: above it the oldest episodes leave the memory (their files
        stay).
    """
    self.image_shape, self.action_dim = tuple(image_shape), action_dim
    self.folder = None if folder is None else Path(folder)
    self.max_bytes = max_bytes
    self.episodes: deque[Episode] = deque()
    self.nbytes = 0
    self.digests: list[str] = []  # of all that were added
    if self.folder is not None:
      self.folder.mkdir(parents=True, exist_ok=True)

  def __len__(self) -> int:
    return len(self.episodes)

  @property
  def added(self) -> int:
    """Episodes added so far, dropped and damaged ones included."""
    return len(self.digests)

  def add(self, episode: Episode) -> None:
    """Adds an episode and writes its file, whole or not at all.

    Raises:
      ValueError: for wrong shapes, types or values that are not finite.
      OSError: if the disk is full.
    """
    check_episode(episode, self.image_shape, self.action_dim)
    if self.folder is not None:
      path = self.folder / f"{self.added:06d}.npz"
      partial = path.with_suffix(".partial")
      try:
        with open(partial, "wb") as file:
          np.savez_compressed(file, **episode._asdict())
          file.flush()
          os.fsync(file.fileno())
        os.replace(partial, path)
      except BaseException:
        partial.unlink(missing_ok=True)
        raise
    self._remember(episode, digest(episode))

  def _remember(self, episode: Episode, found: str) -> None:
    self.episodes.append(episode)
    self.digests.append(found)
    self.nbytes += episode.nbytes
    while self.nbytes > self.max_bytes and len(self.episodes) > 1:
      self.nbytes -= self.episodes.popleft().nbytes

  def load(self, count: int, digests: Sequence[str] = ()) -> list[str]:
    """Fills the store with the first `count` episodes of the folder.

    Later files come from a future that the restored agent has not seen: they
    are moved to `aside/`. So are files that cannot be read.

    Args:
      count: the cursor of the checkpoint.
      digests: of the episodes, where the checkpoint has them: a file may have
        been replaced by a whole one, with other content.

    Returns:
      One line per damaged or missing file.

    Raises:
      UserError: if more than a tenth of the episodes are lost.
    """
    lost = []
    for number in range(count):
      path = self.folder / f"{number:06d}.npz"
      wanted = digests[number] if number < len(digests) else ""
      try:
        episode = read_episode(path, self.image_shape, self.action_dim)
        found = digest(episode)
        if wanted and found != wanted:
          raise UserError(f"{path.name}: not the episode that was written")
      except UserError as error:
        lost.append(str(error))
        # Kept: the file may be put back.
        self.digests.append(wanted)
        if os.path.lexists(path):
          self._set_aside(path)
        continue
      self._remember(episode, found)
    for path in sorted(self.folder.glob("*.npz")):
      if path.stem.isdecimal() and int(path.stem) >= count:
        self._set_aside(path)
    if len(lost) > count / 10:
      raise UserError(
        f"{len(lost)} of {count} episodes in {self.folder} cannot be used, the"
        f" first because of {lost[0]}: put them back, or start in another"
        " workdir"
      )
    return lost

  def _set_aside(self, path: Path) -> None:
    aside = self.folder / "aside"
    aside.mkdir(exist_ok=True)
    target, number = aside / path.name, 0
    # A file gives way to its successor; folders are none of ours.
    while target.is_dir() or (path.is_dir() and os.path.lexists(target)):
      number += 1
      target = aside / f"{path.name}.{number}"
    os.replace(path, target)

  def sample(self, rng: np.random.Generator, batch: int, chunk: int) -> Batch:
    """Draws `batch` chunks of `chunk` entries.

    Every episode that is long enough is as likely as any other, and so is
    every start in it.

    Args:
      rng: advanced.
      batch: `B`.
      chunk: `L`, in entries.

    Returns:
      A `Batch` of numpy arrays with leading `[batch, chunk]`.

    Raises:
      ValueError: if the store is empty or every episode is shorter than a
        chunk.
    """
    if not self.episodes:
      raise ValueError("cannot sample from an empty replay: add episodes first")
    # A simulation that diverges, or a task with terminations, ends early.
    episodes = [e for e in self.episodes if len(e.image) >= chunk]
    if not episodes:
      longest = max(len(e.image) for e in self.episodes)
      raise ValueError(
        f"a chunk of {chunk} entries is longer than every episode, the longest"
        f" of which has {longest}: set train.chunk lower"
      )
    images = np.empty((batch, chunk, *self.image_shape), np.uint8)
    actions = np.empty((batch, chunk, self.action_dim), np.float32)
    rewards = np.empty((batch, chunk), np.float32)
    for i, number in enumerate(rng.integers(len(episodes), size=batch)):
      episode = episodes[number]
      start = rng.integers(len(episode.image) - chunk + 1)
      window = slice(start, start + chunk)
      images[i] = episode.image[window]
      actions[i] = episode.action[window]
      rewards[i] = episode.reward[window]
    return Batch(image=images, action=actions, reward=rewards)
