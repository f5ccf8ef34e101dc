"""What a checkpoint costs a run of PlaNet's CPU default.

    python -m benchmarks.save_cost [--minutes=N] [--every=N]

In every other round a checkpoint is written every few updates, so many that the
cost stands out of what a shared machine does to the time of a round.
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
  """Seconds of rounds with saves and of those after them without, in pairs."""

  with_saves: np.ndarray
  without: np.ndarray
  saves: int
  updates: int


def measure(config: ConfigDict, every: int) -> Rounds:
  """Trains, and saves every `every` updates in every other round."""
  starts, updates, saves = [], [], []

  class Saving(Trainer):
    """Saves often in every other round."""

    def fit(self, target):
      starts.append(time.monotonic())
      updates.append(self.counters.updates)
      saves.append(0)
      super().fit(target)

    def step_inputs(self, update):
      if len(starts) % 2 and update % every == 0:
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
