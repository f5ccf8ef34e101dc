"""A short soak; soak.py takes as long as it is told."""

import pytest


@pytest.mark.slow
def test_many_rounds_hold_no_more_than_a_few(tool, tiny_config, dial, tmp_path):
  soak = tool("soak")
  config = tiny_config(
    "train.max_episodes=150", "evaluate.every=5",
    "runtime.checkpoint_every=3", "runtime.tensorboard=true",
  )  # fmt: skip
  seen = soak.soak(config, tmp_path, env=dial)
  assert len(seen) == 150
  soak.require_no_growth(seen)


def test_growth_is_found(tool):
  soak = tool("soak")
  still = [soak.Usage(i, 1e9, 20, 8) for i in range(40)]
  soak.require_no_growth(still)
  for field, step in (("memory", 2e7), ("files", 1), ("threads", 1)):
    growing = [
      u._replace(**{field: getattr(u, field) + i * step})
      for i, u in enumerate(still)
    ]
    with pytest.raises(AssertionError, match=field):
      soak.require_no_growth(growing)
