"""Which part of a source is for training and which for the probes."""

import hashlib
from collections.abc import Iterable, Sequence

import numpy as np

from jlejepa.runtime.config import suggestion
from jlejepa.runtime.errors import UserError, require

# What sources call the part that is not for training, the best first.
TEST_NAMES = ("test", "validation", "val", "valid")


def own_split(split: str, available: Iterable[str], name: str) -> str | None:
  """Returns which of a source's own splits serves, None if it has to be made.

  `"test"` is served by a validation split where there is no other. What is not
  there is made by `hold_out` if it is `"train"` or `"test"`.

  Raises:
    UserError: for another split that is not there.
  """
  available = tuple(available)
  names = TEST_NAMES if split == "test" else (split,)
  for candidate in names:
    if candidate in available:
      return candidate
  known = dict.fromkeys([*available, "train", "test"])
  require(
    split in ("train", "test"),
    f"{name} has no split {split!r}{suggestion(split, known)}; it has "
    + ", ".join(known),
  )
  return None


def hold_out(
  split: str,
  labels: np.ndarray | None,
  keys: Sequence[object],
  fraction: float,
  name: str,
) -> np.ndarray:
  """Returns the indices of one part of examples that come without a split.

  In each class the examples with the smallest hashes of their keys are held
  out, so that new files move few old ones. Without labels there is nothing to
  probe: everything is for training.

  Args:
    split: `"train"` or `"test"`.
    labels: int `[N]`, or None.
    keys: one for each example, file names or numbers.
    fraction: of each class that is held out, in [0, 1).
    name: what messages call the source.

  Returns:
    Increasing integers.

  Raises:
    UserError: for a test part of nothing.
  """
  if labels is None or fraction == 0:
    if split == "test":
      why = "no labels" if labels is None else "no test split, and holdout is 0"
      raise UserError(f"{name} has {why}: there is nothing to test on")
    return np.arange(len(keys))
  ranks = np.argsort(np.array([_hash(key) for key in keys]), kind="stable")
  held = np.zeros(len(keys), bool)
  for label in np.unique(labels[labels >= 0]):
    members = ranks[labels[ranks] == label]
    # One of two is held out at the least, the last one never.
    number = min(max(round(fraction * len(members)), 1), len(members) - 1)
    held[members[:number]] = True
  require(
    split == "train" or held.any(),
    f"{name} has one example of each class: there is nothing to test on",
  )
  return np.flatnonzero(held if split == "test" else ~held)


def _hash(key: object) -> bytes:
  return hashlib.blake2b(
    str(key).encode(errors="replace"), digest_size=8
  ).digest()
