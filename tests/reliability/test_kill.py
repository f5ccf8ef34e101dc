"""kill -9 at random moments: the resumed run is the uninterrupted one.

JPLANET_KILLS=20 kills as often in every case; `kill.py` says what happens.
"""

import os

import pytest

KILLS = int(os.environ.get("JPLANET_KILLS", "3"))


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_killed_run_ends_as_if_nothing_had_happened(tool, tmp_path):
  kill = tool("kill")
  cases = kill.CASES if KILLS > 3 else ["planet_workers"]
  for name in cases:
    killer = kill.Killer(kill.CASES[name], tmp_path / name, seed=KILLS)
    killer.run(KILLS)
    assert len(killer.kills) == KILLS
