"""A few hundred damaged things of each kind; fuzz.py makes more of them."""

import random

import pytest


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
  "kind, count", [("episodes", 400), ("replays", 60), ("checkpoints", 60)]
)
def test_damage_is_refused_or_changes_nothing(tool, kind, count, tmp_path):
  fuzz = getattr(tool("fuzz"), f"fuzz_{kind}")
  results = fuzz(count, random.Random(count), tmp_path)
  assert sum(results.values()) >= count and len(results) > 1


def test_overrides_are_refused_or_read_as_python_reads_them(tool):
  results = tool("fuzz").fuzz_overrides(200, random.Random(0))
  assert results["refused"] > 50 and results["accepted"] > 5
