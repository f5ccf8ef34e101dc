"""kill -9 at random moments: the resumed run is the uninterrupted one.

Once in most cases; JPLANET_KILLS=20 kills as often, and in all of them.
`kill.py` says what happens.
"""

import os

import pytest

KILLS = int(os.environ.get("JPLANET_KILLS", "1"))
CASES = ["planet_serial", "planet_workers", "lejepa"]
# Their parts are in those above, or in the tests of resumed runs.
MORE = ["planet", "planet_envs", "planet_workers_serial"]


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", CASES + MORE * (KILLS > 1))
def test_a_killed_run_ends_as_if_nothing_had_happened(tool, tmp_path, name):
  kill = tool("kill")
  assert {*CASES, *MORE} == {*kill.CASES}
  killer = kill.Killer(kill.CASES[name], tmp_path, seed=KILLS)
  killer.run(KILLS)
  assert len(killer.kills) == KILLS
