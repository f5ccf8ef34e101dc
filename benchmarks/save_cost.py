"""What a checkpoint costs a run of PlaNet's CPU default.

    python -m benchmarks.save_cost [--minutes=N] [--every=N]

In half of the rounds a checkpoint is written every few updates, so many that
their cost stands out of what a shared machine does to the time of a round. The
order is with, without, without, with, so that no drift is taken for it.
"""

import argparse
import tempfile
import time
from typing import NamedTuple
from unittest import mock

import numpy as np
from ml_collections import ConfigDict

from jlejepa.runtime.config import load_config
from jplanet.train import fit, settle_process
from jplanet.trainer import Trainer


class Rounds(NamedTuple):
  """Seconds of rounds with saves and of a neighbour without, in pairs."""

  with_saves: np.ndarray
  without: np.ndarray
  saves: int
  updates: int


def measure(config: ConfigDict, every: int) -> Rounds:
  """Trains, and saves every `every` updates in half of the rounds."""
  starts, updates, saves, saving = [], [], [], []

  class Saving(Trainer):
    """Saves often in half of the rounds."""

    def fit(self, target):
      saving.append(len(starts) % 4 in (0, 3))
      starts.append(time.monotonic())
      updates.append(self.counters.updates)
      saves.append(0)
      super().fit(target)

    def step_inputs(self, update):
      if saving[-1] and update % every == 0:
        self.save()
        saves[-1] += 1
      return super().step_inputs(update)

  with (
    tempfile.TemporaryDirectory() as folder,
    mock.patch("jplanet.train.Trainer", Saving),
  ):
    fit(config, f"{folder}/run")
  # The first rounds compile, and the last one may have been cut short.
  seconds = np.diff(starts)[4:]
  pairs = seconds[: len(seconds) // 2 * 2].reshape(-1, 2)
  if len(pairs) < 2:
    raise SystemExit(f"{len(starts)} rounds are too few: give more --minutes")
  pairs[1::2] = pairs[1::2, ::-1]
  return Rounds(*pairs.T, saves[4], updates[5] - updates[4])


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--minutes", type=float, default=5.0)
  parser.add_argument("--every", type=int, default=20, help="updates")
  flags = parser.parse_args()
  config = load_config(
    "planet.py:cpu",
    [
      f"runtime.max_minutes={flags.minutes}",
      "evaluate.every=0",
      "runtime.checkpoint_every=1000000",
    ],
  )
  settle_process(config)
  found = measure(config, flags.every)
  costs = (found.with_saves - found.without) / found.saves
  error = costs.std(ddof=1) / np.sqrt(len(costs))
  # In a hundred updates' time, by what one save takes.
  share = found.updates / 100 / found.without.mean()
  print(
    f"{len(costs)} rounds of {found.updates} updates with {found.saves} saves"
    f" {found.with_saves.mean():.2f} s, and as many without"
    f" {found.without.mean():.2f} s\n"
    f"one save {costs.mean():.3f} +- {error:.3f} s; one every 100 updates"
    f" takes {share * costs.mean():.2%} +- {share * error:.2%} of the time"
  )


if __name__ == "__main__":
  main()
