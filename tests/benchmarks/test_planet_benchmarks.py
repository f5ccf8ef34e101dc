"""The harness, and PlaNet's own rows at sizes that take a moment."""

import json

import pytest

from benchmarks import cpu_default, harness, pixels, plan, scaling, update
from benchmarks.harness import Case
from benchmarks.worker import Step

HERE = "tests.benchmarks.test_planet_benchmarks"


def quick(check: float = 1.0) -> Step:
  """A case that prints, as libraries do."""
  return Step(run=lambda: print("noise"), flop=100.0, check=check)


def breaks() -> Step:
  raise RuntimeError("this case cannot be built")


def breaks_later() -> Step:
  calls = []

  def run():
    calls.append(None)
    if len(calls) > 2:
      raise RuntimeError("this case fails in its second round")

  return Step(run=run)


def test_cases_take_turns_and_a_failing_one_is_left_out(tmp_path, capsys):
  out = tmp_path / "new" / "table.json"
  cases = [
    Case("ours", f"{HERE}:quick", options={"check": 2.0}),
    Case("peer", f"{HERE}:quick", peer=True),
    Case("broken peer", f"{HERE}:breaks", peer=True),
    Case("later", f"{HERE}:breaks_later"),
  ]
  rows = harness.compare("Title", cases, rounds=3, target=0.5, out=str(out))
  ours, peer, broken, later = rows
  assert [row["rounds"] for row in (ours, peer)] == [3, 3]
  assert (ours["check"], peer["check"]) == (2.0, 1.0)
  assert ours["time_ratio"] == ours["median_s"] / peer["median_s"]
  assert peer["time_ratio"] == 1 and ours["peak"] > 0
  assert broken["failed"] and later["failed"]
  printed = capsys.readouterr().out
  assert "| *broken peer* | failed |" in printed and "at most 0.5" in printed
  assert "| later | failed |" in printed
  record = json.loads(out.read_text())
  assert record["title"] == "Title" and len(record["rows"]) == 4


def test_words_choose_tables_and_leave_rows_out():
  cases = [Case("float32", f"{HERE}:quick"), Case("bf16", f"{HERE}:breaks")]
  parse = harness.parser("").parse_args
  names = lambda *flags: [
    row["case"] for row in harness.table("Title", cases, parse(flags))
  ]
  few = "--rounds=1"
  assert names(few) == ["float32", "bf16"]
  assert names(few, "--without=bf") == ["float32"]
  assert names(few, "--without=") == ["float32", "bf16"]
  assert names(few, "--only=itl", "--without=f") == []
  assert names(few, "--only=other") == []


def test_without_a_peer_our_rows_remain():
  assert all(not case.peer for case in plan.cases(1, None, True, True))
  rows = update.cases(50, 50, False, None, gpu=True)
  assert rows and not any(case.peer for case in rows)


def test_every_peer_row_carries_its_path():
  rows = plan.cases(8, "/peer", True, True)
  rows += update.cases(50, 50, True, "/peer", gpu=True)
  assert {case.path for case in rows if case.peer} == {"/peer"}


TINY = dict(batch=2, steps=3)


@pytest.mark.slow
@pytest.mark.parametrize(
  "build",
  [
    lambda: plan.ours(2, "bfloat16", candidates=8, horizon=2, elites=4),
    lambda: cpu_default.patches(**TINY),
    lambda: pixels.play("ray", size=16, decisions=2),
  ],
  ids=["plan", "cpu_default", "pixels"],
)
def test_our_rows_run_at_tiny_sizes(build):
  step = build()
  step.run()
  step.run()


@pytest.mark.slow
def test_the_papers_update_runs_at_a_tiny_batch():
  step = update.ours(**TINY, overshooting=True)
  step.run()
  assert step.flop > 0


def test_operations_grow_as_the_sizes_do():
  assert plan.count_flop(8, 1000, 12) == 8 * plan.count_flop(1, 1000, 12)
  # 92.5e9 by hand: 385,400 multiplications for each of 120,000 latent steps.
  assert plan.count_flop(1, 1000, 12) == 2 * 385_400 * 120_000
  assert update.count_flop(4, 8, False) == 2 * update.count_flop(2, 8, False)
  assert update.count_flop(4, 8, True) > update.count_flop(4, 8, False)


def test_growth_is_drawn_beside_the_operations(tmp_path):
  row = lambda t: {"median_s": t, "min_s": 0.9 * t, "max_s": 1.1 * t}
  sizes = (1, 2, 4)
  rows = [row(t) for t in sizes]
  scaling.draw({"batch": (sizes, rows, sizes)}, tmp_path / "x.png")
  assert (tmp_path / "x.png").stat().st_size > 5000
  names = {next(iter(case.options)) for case in scaling.plan_cases("horizon")}
  assert names == {"horizon"}
  last = scaling.sigreg_cases("d")[-1]
  assert last.options == {"n": 1024, "d": 2048, "m": 1024}


def test_rates_leave_out_the_round_that_compiles():
  rows = [
    dict(updates=0, env_steps=8000, minutes=0.5),
    dict(updates=100, env_steps=16000, minutes=2.0),
    dict(updates=200, env_steps=24000, minutes=2.5),
    dict(updates=400, env_steps=32000, minutes=3.0),
  ]
  rates = cpu_default.rates_of(rows, 3.0)
  assert rates == {"env_steps": 16000, "updates": 300}
  for count in (0, 1, 2):
    with pytest.raises(
      SystemExit, match=f"enough for {max(count - 1, 0)} rounds"
    ):
      cpu_default.rates_of(rows[:count], 1.5)
