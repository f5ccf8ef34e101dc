"""Learning curves: the numbers drawn and the words on them."""

import subprocess
import sys

import numpy as np
import pytest

from jplanet import plots
from jplanet.scores import PAPER_METHODS, write_scores

pytest.importorskip("matplotlib")


def _run(path, *, xs=(10, 20, 30), level=100.0, count=4, **changes):
  rng = np.random.default_rng(0)
  arguments = dict(
    task="cartpole_swingup",
    seed=0,
    renderer="ray",
    env_steps=[1000 * x for x in xs],
    episodes=list(xs),
    minutes=[0.5 * x for x in xs],
    returns=[(level + rng.normal(size=count)).tolist() for _ in xs],
    versions={},
  )
  write_scores(path, **{**arguments, **changes})
  return path


def _words(workdirs, tmp_path, **options):
  """Draws an SVG: matplotlib leaves every text in it as a comment."""
  out = plots.learning_curve(workdirs, tmp_path / "plot.svg", **options)
  return out.read_text()


def _curve(xs, returns, x="episodes"):
  ys = [float(np.mean(r)) for r in returns]
  return plots._curve({f"xs_{x}": xs, "ys": ys, "returns": returns}, x)


def test_the_mean_is_over_runs_at_equal_x():
  a = _curve([0, 10], [[0.0], [100.0]])
  b = _curve([0, 10], [[50.0], [300.0]])
  grid, mean, _, _ = plots._aggregate([a, b])
  np.testing.assert_allclose(grid, [0, 10])
  np.testing.assert_allclose(mean, [25, 200])


def test_runs_evaluated_at_different_x_are_interpolated_where_all_have_been():
  a = _curve([0, 10, 20], [[0.0], [100.0], [200.0]])
  b = _curve([5, 15], [[50.0], [150.0]])
  grid, mean, low, high = plots._aggregate([a, b])
  # Both lie on y = 10 x; only 5, 10 and 15 are within both.
  np.testing.assert_allclose(grid, [5, 10, 15])
  for line in (mean, low, high):
    np.testing.assert_allclose(line, 10 * grid)


def test_the_band_is_the_5th_to_95th_percentile_of_all_episodes():
  # 101 + 101 returns that together are 0, 0.5, ... 100.5; 5% is near 5.
  even, odd = np.arange(0, 101.0), np.arange(0, 101.0) + 0.5
  curves = [_curve([1], [even.tolist()]), _curve([1], [odd.tolist()])]
  _, _, low, high = plots._aggregate(curves)
  want = np.percentile(np.concatenate([even, odd]), [5, 95])
  np.testing.assert_allclose([low[0], high[0]], want, atol=0.5)


def test_runs_that_never_overlap_have_no_mean():
  curves = [_curve([0, 1], [[0.0], [1.0]]), _curve([5, 6], [[0.0], [1.0]])]
  assert not plots._aggregate(curves)[0].size


def test_evaluations_are_sorted_by_x():
  xs, ys, quantiles = _curve([20, 10], [[2.0, 4.0], [1.0, 1.0]])
  np.testing.assert_allclose(xs, [10, 20])
  np.testing.assert_allclose(ys, [1, 3])
  np.testing.assert_allclose(quantiles[:, [0, -1]], [[1, 1], [2, 4]])


@pytest.mark.parametrize("row", plots.PAPER_TABLE_1.values())
def test_labels_never_overlap_and_stay_below_the_top(row):
  values = sorted(row.values())
  places = plots._spread(values, gap=52.0, top=1040.0)
  assert (np.diff(places) >= 52 - 1e-9).all() and places[-1] <= 1040
  assert np.abs(np.subtract(places, values)).max() < 110


def test_labels_far_apart_stay_where_they_belong():
  assert plots._spread([100, 300], gap=50, top=1000) == [100, 300]


def test_a_figure_names_task_renderer_axes_seeds_and_the_papers_scores(
  tmp_path,
):
  runs = [_run(tmp_path / str(i), seed=i) for i in range(2)]
  words = _words(runs, tmp_path, x="env_steps")
  expected = ["cartpole swingup", "renderer: ray", "Environment steps"]
  expected += ["Episode return (0 to 1000)", "PlaNet, mean of 2 seeds", "30k"]
  expected += ["PlaNet, paper (1k ep.): 821", "D4PG (100k ep.): 862"]
  expected += ["A3C, state (100k ep.): 558", "CEM + simulator: 850"]
  for text in expected:
    assert f"<!-- {text}" in words, text
  assert set(plots._PAPER) == set(PAPER_METHODS)


def test_renderers_are_all_named_and_other_tasks_have_no_paper_lines(tmp_path):
  runs = [_run(tmp_path / r, task="mine", renderer=r) for r in ("gl", "ray")]
  words = _words(runs, tmp_path)
  assert "<!-- renderer: gl, ray" in words and "paper" not in words


def test_every_task_has_a_panel_and_every_method_a_line(tmp_path):
  runs = [
    _run(tmp_path / "a"),
    _run(tmp_path / "b", method="SSM"),
    _run(tmp_path / "c", task="cheetah_run"),
    _run(tmp_path / "d", task="walker_walk"),
    _run(tmp_path / "e", task="mine"),
  ]
  words = _words(runs, tmp_path, x="minutes")
  for task in ("cartpole swingup", "cheetah run", "walker walk", "mine"):
    assert words.count(f"<!-- {task} -->") == 1
  assert words.count("<!-- SSM, 1 seed -->") == 1
  assert words.count("<!-- PlaNet, 1 seed -->") == 4
  assert words.count("<!-- Training time (minutes) -->") == 4


def test_a_single_evaluation_can_be_drawn(tmp_path):
  run = _run(tmp_path / "a", xs=(10,))
  out = plots.learning_curve(run, tmp_path / "new" / "p.png")
  assert out.read_bytes().startswith(b"\x89PNG")


def test_runs_that_never_overlap_can_be_drawn(tmp_path):
  runs = [_run(tmp_path / "a"), _run(tmp_path / "b", xs=(100, 200))]
  assert plots.learning_curve(runs, tmp_path / "p.png").stat().st_size > 0


def test_bad_arguments_are_refused(tmp_path):
  with pytest.raises(ValueError, match="x must be one of episodes"):
    plots.learning_curve([tmp_path], tmp_path / "p.png", x="steps")
  with pytest.raises(ValueError, match="no run to plot"):
    plots.learning_curve([], tmp_path / "p.png")
  with pytest.raises(FileNotFoundError, match="no scores at"):
    plots.learning_curve([tmp_path], tmp_path / "p.png")


def test_the_command_line_draws_and_fails_with_one_line(tmp_path, capsys):
  run = _run(tmp_path / "a")
  out = tmp_path / "p.png"
  plots.main([str(run), f"--out={out}", "--x=env_steps"])
  assert out.is_file() and capsys.readouterr().out.strip() == str(out)
  with pytest.raises(SystemExit) as stop:
    plots.main([str(tmp_path / "none"), f"--out={out}"])
  assert stop.value.code == 2
  assert "error: no scores at" in capsys.readouterr().err


def test_drawing_leaves_pyplot_and_the_backend_of_a_notebook_alone(tmp_path):
  run = _run(tmp_path / "a")
  code = (
    "import sys\nfrom jplanet.plots import main\n"
    f"main([{str(run)!r}, '--out={tmp_path}/p.png'])\n"
    "assert 'matplotlib.pyplot' not in sys.modules"
  )
  subprocess.run([sys.executable, "-c", code], check=True)
