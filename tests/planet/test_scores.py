"""Scores: the summary, the file, and the numbers of the paper."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import scipy.stats

from jplanet import scores
from jplanet.scores import PAPER_TABLE_1, iqm, read_scores, summarize


def _write(path, **changes):
  arguments = dict(
    task="cartpole_swingup",
    seed=3,
    renderer="ray",
    env_steps=[1000, 2000],
    episodes=[1, 2],
    minutes=[0.5, 1.25],
    returns=[[10.0, 20.0], [30.0, 50.0]],
    versions={"jax": "0"},
  )
  return scores.write_scores(path, **{**arguments, **changes})


def test_iqm_drops_a_quarter_of_the_values_at_each_end():
  # Of eight values two go at each end: -50 and 0, 5 and 100.
  assert iqm([100, 0, 5, 1, 4, 2, 3, -50]) == pytest.approx((1 + 2 + 3 + 4) / 4)
  assert iqm([0, 30, 60]) == pytest.approx(30)


@pytest.mark.parametrize("count", [1, 3, 4, 7, 10, 50])
def test_iqm_is_scipys_trimmed_mean(count):
  x = np.random.default_rng(count).normal(size=(5, count))
  np.testing.assert_allclose(iqm(x), scipy.stats.trim_mean(x, 0.25, axis=1))


def test_a_summary_has_the_known_values():
  # Mean 30, median 20, squares 900 + 400 + 100 + 1600 over 4 -> variance 750.
  x = [0.0, 10.0, 30.0, 80.0]
  got = summarize(x)
  want = dict(mean=30, median=20, iqm=20, min=0, max=80, episodes=4)
  assert {name: got[name] for name in want} == want
  assert got["std"] == pytest.approx(np.sqrt((30**2 + 20**2 + 0 + 50**2) / 4))
  assert got["iqm_low"] <= got["iqm"] <= got["iqm_high"]


def test_the_interval_agrees_with_scipys_bootstrap():
  x = np.random.default_rng(0).gamma(2.0, 100.0, size=60)
  got = summarize(x, resamples=5000)
  want = scipy.stats.bootstrap(
    (x,),
    lambda v, axis: scipy.stats.trim_mean(v, 0.25, axis=axis),
    n_resamples=5000,
    method="percentile",
    rng=np.random.default_rng(1),
  ).confidence_interval
  # The Monte Carlo error of an end point is about 2% of the width here.
  width = want.high - want.low
  assert got["iqm_low"] == pytest.approx(want.low, abs=0.1 * width)
  assert got["iqm_high"] == pytest.approx(want.high, abs=0.1 * width)


def test_the_interval_covers_the_truth_about_as_often_as_it_says():
  rng = np.random.default_rng(2)
  hits = [
    s["iqm_low"] < 0 < s["iqm_high"]
    for s in (
      summarize(rng.normal(size=40), seed=i, resamples=400) for i in range(300)
    )
  ]
  # The percentile bootstrap of 40 values covers a little under 95%.
  assert 0.88 < np.mean(hits) < 0.98


def test_the_bootstrap_is_stratified_over_runs():
  # Every run is constant, so redrawing within runs changes nothing; redrawing
  # all episodes together would.
  runs = np.array([[100.0] * 5, [500.0] * 5, [900.0] * 5])
  got = summarize(runs)
  assert got["iqm_low"] == got["iqm"] == got["iqm_high"] == pytest.approx(500)
  pooled = summarize(runs.ravel())
  assert pooled["iqm_low"] < 400 and pooled["iqm_high"] > 600
  assert got["episodes"] == pooled["episodes"] == 15


def test_a_summary_repeats_with_its_seed():
  x = np.random.default_rng(0).normal(size=20)
  assert summarize(x, seed=1) == summarize(x, seed=1)
  assert summarize(x, seed=1) != summarize(x, seed=2)


def test_one_episode_has_an_interval_of_no_width():
  got = summarize([123.0])
  assert got["iqm_low"] == got["iqm_high"] == 123 and got["std"] == 0


@pytest.mark.parametrize(
  "returns, words",
  [
    ([], "non-empty"),
    (5.0, "non-empty"),
    (np.zeros((2, 2, 2)), "shape"),
    ([1.0, float("nan")], "finite"),
    ([[1.0], [2.0, 3.0]], "numbers"),
    (["a"], "numbers"),
  ],
)
def test_bad_returns_are_refused_in_one_line(returns, words):
  with pytest.raises(ValueError, match=words) as error:
    summarize(returns)
  assert "\n" not in str(error.value)


def test_the_papers_table_is_whole_and_agrees_with_its_text():
  assert len(PAPER_TABLE_1) == 7
  for row in PAPER_TABLE_1.values():
    assert tuple(row) == scores.PAPER_METHODS
    # "PlaNet outperforms A3C on all tasks"
    assert row["PlaNet"] > row["A3C"]
  cheetah = PAPER_TABLE_1["cheetah_run"]
  # "26% over D4PG on cheetah"
  assert round(cheetah["PlaNet"] / cheetah["D4PG"] - 1, 2) == 0.26
  assert PAPER_TABLE_1["ball_in_cup_catch"] == PAPER_TABLE_1["cup_catch"]
  assert PAPER_TABLE_1["cartpole_swingup"]["PlaNet"] == 821


def test_scores_come_back_as_they_were_written(tmp_path):
  path = _write(tmp_path / "new folder", final=[1.0, 2.0, 3.0])
  assert path == tmp_path / "new folder" / "scores.json"
  got = read_scores(tmp_path / "new folder")
  assert got == read_scores(path) == json.loads(path.read_text())
  assert got["task"] == "cartpole_swingup" and got["seed"] == 3
  assert got["renderer"] == "ray" and got["versions"] == {"jax": "0"}
  assert got["xs_env_steps"] == [1000, 2000] and got["xs_episodes"] == [1, 2]
  assert got["xs_minutes"] == [0.5, 1.25]
  assert got["returns"] == [[10, 20], [30, 50]] and got["ys"] == [15, 40]
  assert got["final"] == summarize([1.0, 2.0, 3.0])


def test_the_last_evaluation_is_the_final_one_by_default(tmp_path):
  _write(tmp_path)
  assert read_scores(tmp_path)["final"] == summarize([30.0, 50.0])


def test_numpy_numbers_and_ragged_evaluations_can_be_written(tmp_path):
  _write(
    tmp_path,
    seed=np.int64(4),
    env_steps=np.array([1, 2]),
    minutes=np.float32([1, 2]),
    returns=[np.float32([1, 2]), np.float32([3])],
  )
  assert read_scores(tmp_path)["ys"] == [1.5, 3]


def test_versions_are_those_installed_here(tmp_path):
  _write(tmp_path, versions=None)
  assert read_scores(tmp_path)["versions"]["numpy"] == np.__version__


@pytest.mark.parametrize(
  "changes, words",
  [
    (dict(episodes=[1]), "xs_episodes"),
    (dict(env_steps=[], episodes=[], minutes=[], returns=[]), "at least one"),
    (dict(returns=[[1.0], [float("inf")]]), "finite"),
    (dict(returns=[[1.0], []]), "non-empty"),
    (dict(minutes=[0.0, float("nan")]), "finite"),
  ],
)
def test_bad_scores_are_refused_and_the_old_file_stays(
  tmp_path, changes, words
):
  before = _write(tmp_path).read_bytes()
  with pytest.raises(ValueError, match=words):
    _write(tmp_path, **changes)
  assert (tmp_path / "scores.json").read_bytes() == before


def test_a_failed_write_leaves_the_old_file_and_nothing_else(
  tmp_path, monkeypatch
):
  before = _write(tmp_path).read_bytes()

  def full(_):
    raise OSError(28, "No space left on device")

  monkeypatch.setattr(os, "fsync", full)
  with pytest.raises(OSError, match="No space"):
    _write(tmp_path, seed=99)
  assert os.listdir(tmp_path) == ["scores.json"]
  assert (tmp_path / "scores.json").read_bytes() == before


def test_a_reader_never_sees_a_half_written_file(tmp_path):
  path = _write(tmp_path)
  before = path.read_text()
  with path.open() as reader:
    # Replaced, not overwritten: who has the old file open reads all of it.
    _write(tmp_path, seed=99)
    assert reader.read() == before
  assert read_scores(tmp_path)["seed"] == 99


def test_files_that_are_no_scores_are_named(tmp_path):
  with pytest.raises(FileNotFoundError, match="no scores at"):
    read_scores(tmp_path)
  path = _write(tmp_path)
  path.write_text(path.read_text()[:-20])
  with pytest.raises(ValueError, match=r"scores\.json is not valid JSON"):
    read_scores(tmp_path)
  path.write_text('{"task": "x"}')
  with pytest.raises(ValueError, match=r"lacks .*returns"):
    read_scores(tmp_path)
  path.write_text("[1, 2]")
  with pytest.raises(ValueError, match="not a scores file"):
    read_scores(tmp_path)


def test_scores_and_plots_load_neither_jax_nor_matplotlib():
  code = (
    "import sys, jplanet.scores, jplanet.plots, jplanet.video\n"
    "assert not {'jax', 'matplotlib'} & set(sys.modules)"
  )
  subprocess.run([sys.executable, "-c", code], check=True)
