"""A short soak; soak.py takes as long as it is told."""

import json

import numpy as np
import pytest


@pytest.mark.slow
def test_many_rounds_hold_no_more_than_a_few(tool, tiny_config, dial, tmp_path):
  soak = tool("soak")
  # A save may last for three rounds, with more files open than between saves.
  # Most of the samples must be of one kind, or a median is of either.
  config = tiny_config(
    "train.max_episodes=150", "evaluate.every=5",
    "runtime.checkpoint_every=12", "runtime.tensorboard=true",
  )  # fmt: skip
  seen = soak.soak(config, tmp_path, env=dial)
  assert len(seen) == 150
  soak.require_no_growth(seen)


@pytest.fixture
def still(tool):
  """An hour: memory that swings by a gigabyte, and falls after a peak."""
  rng = np.random.default_rng(0)
  peak = lambda i: 1e9 * np.exp(-((i - 40) ** 2) / 200)
  return [
    tool("soak").Usage(
      i / 4, 2e9 + peak(i) + rng.uniform(0, 1e9) * (i % 3 == 0), 20 + i % 2, 18
    )
    for i in range(240)
  ]


def test_a_run_that_swings_does_not_grow(tool, still):
  tool("soak").require_no_growth(still)


# 300 MB, twelve files or twelve threads an hour; the last starts late.
@pytest.mark.parametrize(
  "field, grown",
  [
    ("memory", lambda i: 1.25e6 * i),
    ("memory", lambda i: 4e6 * max(0, i - 120)),
    ("files", lambda i: i // 20),
    ("threads", lambda i: i // 20),
    ("threads", lambda i: 2 * (i > 170)),
  ],
)
def test_slow_growth_is_found_among_the_swings(tool, still, field, grown):
  growing = [
    u._replace(**{field: getattr(u, field) + grown(i)})
    for i, u in enumerate(still)
  ]
  with pytest.raises(AssertionError, match=f"{field} grew from"):
    tool("soak").require_no_growth(growing)


def test_a_run_of_few_rows_shows_nothing(tool, still):
  with pytest.raises(AssertionError, match="only 7 rows"):
    tool("soak").require_no_growth(still[:7])


def test_the_samples_are_kept(tool, tmp_path, monkeypatch):
  soak = tool("soak")
  kept = [soak.Usage(i, 1e9, 20, 8) for i in range(8)]
  monkeypatch.setattr(soak, "settle_process", lambda config: None)
  monkeypatch.setattr(soak, "soak", lambda *args, **kwargs: kept)
  soak.main([f"--out={tmp_path / 'soak.json'}", "--minutes=1"])
  samples = json.loads((tmp_path / "soak.json").read_text())["samples"]
  assert samples[3] == dict(minutes=3, memory=1e9, files=20, threads=8)
