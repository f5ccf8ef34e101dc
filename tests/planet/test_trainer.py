"""The order of the phases: a schedule in which none of them does anything."""

from types import SimpleNamespace

import pytest

from jlejepa.runtime.checkpoint import CheckpointError
from jlejepa.runtime.config import load_config
from jplanet.counters import Counters
from jplanet.trainer import Trainer


class Dry(Trainer):
  """Counts the phases of a schedule, of which none does anything."""

  def __init__(self, config, seed_episodes, lengths):
    self.config, self.lengths = config, lengths
    self.counters, self.state = Counters(), None
    self.seed_episodes = seed_episodes
    self.max_episodes = config.train.max_episodes
    self.stop, self.log = SimpleNamespace(requested=False), []
    self.checkpoints = SimpleNamespace(check=lambda: None)

  def init(self):
    self.state = ()

  def fit(self, target):
    self.counters = self.counters._replace(updates=target)

  def collect(self, *, random):
    self.counters = self.counters.add_episodes(self.lengths, [4])
    self.log.append((random, self.counters.updates))

  def evaluate(self):
    evaluations = self.counters.evaluations + 1
    self.counters = self.counters._replace(evaluations=evaluations)

  def save(self):
    pass


def test_the_papers_schedule():
  """5 seed episodes, then 100 updates before each of the other 995."""
  trainer = Dry(load_config("planet.py:cheetah_run"), 5, [250])
  trainer.run()
  counts = trainer.counters
  assert [random for random, _ in trainer.log] == [True] * 5 + [False] * 995
  assert [updates for _, updates in trainer.log[:7]] == [0] * 5 + [100, 200]
  assert trainer.log[499][1] == 49_500
  assert (counts.episodes, counts.updates) == (1000, 99_500)
  assert (counts.decisions, counts.env_steps) == (250_000, 1_000_000)
  # After every tenth of 995 phases.
  assert counts.evaluations == 99


def test_updates_can_follow_the_decisions():
  """A fifth of the decisions so far, however long the episodes are."""
  config = load_config("planet.py:cpu", ["train.max_episodes=32"])
  trainer = Dry(config, 8, [125] * 7 + [25])
  trainer.run()
  assert [updates for _, updates in trainer.log] == [0, 180, 360, 540]


def test_a_checkpoint_that_failed_ends_the_run_before_the_next_phase():
  trainer = Dry(load_config("planet.py:cheetah_run"), 5, [250])

  def check():
    if len(trainer.log) == 3:
      raise CheckpointError("full")

  trainer.checkpoints.check = check
  with pytest.raises(CheckpointError):
    trainer.run()
  assert len(trainer.log) == 3
