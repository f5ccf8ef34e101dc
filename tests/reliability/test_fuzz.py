"""A few hundred damaged things of each kind; fuzz.py makes more of them."""

import random

import pytest

from jlejepa.runtime.config import load_config
from jlejepa.runtime.errors import UserError
from jplanet.check import check_config


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
  "kind, count",
  [
    ("episodes", 400), ("replays", 60), ("checkpoints", 60), ("images", 600),
    ("folders", 60), ("archives", 400), ("prepared", 40),
  ],
)  # fmt: skip
def test_damage_is_refused_or_changes_nothing(tool, kind, count, tmp_path):
  if kind == "prepared":
    pytest.importorskip("tensorflow_datasets")
  fuzz = tool("fuzz").KINDS[kind]
  results = fuzz(count, random.Random(count), tmp_path)
  assert sum(results.values()) >= count and len(results) > 1
  assert {"refused", "intact", "nothing left out", "step 8"} & set(results)


@pytest.mark.parametrize("package", ["planet", "lejepa"])
def test_overrides_are_refused_or_read_as_python_reads_them(tool, package):
  fuzz = tool("fuzz").KINDS[f"overrides_{package}"]
  results = fuzz(200, random.Random(0), None)
  assert results["refused"] > 50 and results["accepted"] > 5


@pytest.mark.parametrize(
  "override",
  [
    # XLA ended the process, or raised an error of its own.
    "planner.horizon=6925830576433062339",
    "planner.icem.elites=-1",
    "planner.icem.elites=0",
    "seed=99999999999999999999",
    # A line break in the message.
    "a\nb=1",
  ],
)
def test_what_fuzzing_has_found_is_one_line(override):
  with pytest.raises(UserError) as error:
    check_config(load_config("planet.py:cpu", [override]))
  assert "\n" not in str(error.value)
