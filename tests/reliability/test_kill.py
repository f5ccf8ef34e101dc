"""kill -9 at random moments: the resumed run is the uninterrupted one.

Once in every case, and JPLANET_KILLS=20 kills as often; `kill.py` says what
happens.
"""

import os

import pytest

KILLS = int(os.environ.get("JPLANET_KILLS", "1"))
CASES = (
  "planet", "planet_serial", "planet_envs", "planet_workers",
  "planet_workers_serial", "lejepa",
)  # fmt: skip


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", CASES)
def test_a_killed_run_ends_as_if_nothing_had_happened(tool, tmp_path, name):
  kill = tool("kill")
  assert {*CASES} == {*kill.CASES}
  killer = kill.Killer(kill.CASES[name], tmp_path, seed=KILLS)
  killer.run(KILLS)
  assert len(killer.kills) == KILLS
