"""The loss as a judge of runs: C(alpha), the folders and the command."""

import json
import re

import numpy as np
import pytest
from scipy import stats

from jlejepa import selection
from jlejepa.runtime.errors import UserError
from jlejepa.selection import loss_correlation, read_run, read_runs

# On this accuracy falls as loss / lambda^0.5 rises, and no other power does.
LAMS = np.array([0.01, 0.04, 0.09, 0.16, 0.25, 0.36])
HARDNESS = np.array([3.0, 1.0, 6.0, 2.0, 5.0, 4.0])
ACCURACY = 0.9 - 0.1 * HARDNESS
LOSSES = HARDNESS * LAMS**0.5


def _sweep(count=40, noise=0.02, seed=0):
  rng = np.random.default_rng(seed)
  lams = rng.choice([0.01, 0.02, 0.05, 0.1, 0.2], size=count)
  hardness = rng.uniform(1, 2, size=count)
  accuracy = 1.2 - hardness / 2 + noise * rng.normal(size=count)
  return hardness * lams**0.4, lams, accuracy


def test_a_constructed_sweep_has_its_peak_at_its_alpha():
  found = loss_correlation(LOSSES, LAMS, ACCURACY)
  assert found.alphas[found.best] == 0.5
  assert found.correlation[found.best] == pytest.approx(1)
  assert found.correlation[0] < 0.8 and found.correlation[-1] < 0.7


def test_every_alpha_is_scipys_rank_correlation_with_ties():
  losses, lams, accuracy = _sweep()
  accuracy = accuracy.round(1)
  losses[:5] = losses[0]
  found = loss_correlation(losses, lams, accuracy)
  wanted = [
    -stats.spearmanr(losses / lams**a, accuracy).statistic for a in found.alphas
  ]
  np.testing.assert_allclose(found.correlation, wanted, rtol=1e-12)
  assert len(set(accuracy)) < len(accuracy)


def test_the_interval_is_the_bootstrap_of_runs_drawn_again():
  losses, lams, accuracy = _sweep(noise=0.2)
  found = loss_correlation(losses, lams, accuracy, alphas=[0.4], resamples=400)
  rng = np.random.default_rng(1)
  scaled, values = losses / lams**0.4, []
  for _ in range(400):
    i = rng.integers(len(losses), size=len(losses))
    values.append(-stats.spearmanr(scaled[i], accuracy[i]).statistic)
  low, high = np.percentile(values, [2.5, 97.5])
  np.testing.assert_allclose(
    [found.low[0], found.high[0]], [low, high], atol=0.06
  )
  assert found.low[0] < found.correlation[0] < found.high[0]
  more = loss_correlation(*_sweep(160, noise=0.2), alphas=[0.4])
  assert more.high - more.low < found.high - found.low
  again = loss_correlation(losses, lams, accuracy, alphas=[0.4], resamples=400)
  np.testing.assert_array_equal(again.low, found.low)


def test_the_order_of_runs_does_not_matter():
  losses, lams, accuracy = _sweep()
  order = np.random.default_rng(0).permutation(40)
  a = loss_correlation(losses, lams, accuracy)
  b = loss_correlation(losses[order], lams[order], accuracy[order])
  np.testing.assert_allclose(a.correlation, b.correlation, atol=1e-12)


@pytest.mark.parametrize(
  "arguments, message",
  [
    (([1, 2], [0.1, 0.1], [0, 1]), "2 runs cannot be ranked"),
    (([1, 2, 3], [0.1, 0.1], [0, 1, 2]), "must be equally many"),
    (([1, 2, 3], [0.1, 0.0, 0.1], [0, 1, 2]), "lambda above 0"),
    (([1, np.nan, 3], [0.1, 0.1, 0.1], [0, 1, 2]), "must be finite"),
    (([1, 2, 3], [0.1, 0.1, 0.1], [1, 1, 1]), "all 3 runs have the accuracy 1"),
  ],
)
def test_bad_sweeps_are_refused(arguments, message):
  with pytest.raises(ValueError, match=message):
    loss_correlation(*arguments)


def _folder(
  path,
  *,
  lam=0.05,
  loss=1.0,
  accuracy=0.5,
  rows=20,
  supervised=False,
  source="digits",
  **more,
):
  """Writes what a finished run leaves; its loss falls to `loss` at the end."""
  path.mkdir(parents=True)
  section = {"lam": lam, "lam_batch": 0} | more
  config = {
    "loss": section,
    "train": {"batch": 64, "supervised": supervised},
    "data": {"source": source},
  }
  (path / "config.json").write_text(json.dumps(config))
  values = np.linspace(loss + 5, loss + 1, rows)
  # The last two of twenty are the last tenth.
  values[-2:] = loss - 0.1, loss + 0.1
  lines = [
    {"step": i, "loss": v, "prediction": v / 2, "sigreg": 2 * v}
    for i, v in enumerate(values)
  ]
  text = "".join(json.dumps(line) + "\n" for line in lines)
  (path / "metrics.jsonl").write_text(text)
  scores = {"rows": {"embedding": {"dims": 8, "linear": accuracy, "knn": 0.25}}}
  (path / "scores.json").write_text(json.dumps(scores))
  return path


def test_a_run_is_read_with_the_mean_of_its_last_tenth(tmp_path):
  run = read_run(_folder(tmp_path / "a", loss=2.0))
  assert run.name == "a" and run.lam == 0.05 and run.accuracy == 0.5
  assert run.loss == pytest.approx(2)
  assert run.prediction == pytest.approx(1)
  assert run.sigreg == pytest.approx(4)
  assert read_run(tmp_path / "a", "knn").accuracy == 0.25


def test_lambda_is_the_one_that_the_loss_was_computed_with(tmp_path):
  run = read_run(_folder(tmp_path / "a", lam=0.5, lam_batch=128))
  # lam N : 1 - lam is kept: twice the weight at half the batch.
  assert run.lam / (1 - run.lam) == pytest.approx(2)


def _without(name):
  return lambda path: (path / name).unlink()


def _replaced(name, text):
  return lambda path: (path / name).write_text(text)


@pytest.mark.parametrize(
  "damage, message",
  [
    (_without("config.json"), "holds no run"),
    (_replaced("config.json", '{"lo'), "config.json is damaged"),
    (_replaced("config.json", '{"env": {}}'), "no run of jlejepa.train"),
    (_without("scores.json"), "unfinished or has no labels"),
    (_replaced("scores.json", "{}"), "scores.json is damaged"),
    (_replaced("scores.json", '{"rows": 3}'), "scores.json is damaged"),
    (
      _replaced("scores.json", '{"rows": {"embedding": {"knn": 0.1}}}'),
      "no probe 'linear': it has knn",
    ),
    (_without("metrics.jsonl"), "has no metrics"),
    (_replaced("metrics.jsonl", '{"step": 1}\n'), "no run of jlejepa.train"),
    (
      _replaced(
        "metrics.jsonl",
        '{"loss": "NaN", "prediction": 1, "sigreg": 1}\n',
      ),
      "not finite",
    ),
  ],
)
def test_damaged_and_unfinished_folders_are_named_and_left_out(
  tmp_path, damage, message
):
  good, bad = _folder(tmp_path / "good"), _folder(tmp_path / "bad")
  damage(bad)
  runs, left_out = read_runs([good, bad])
  assert [run.name for run in runs] == ["good"]
  assert len(left_out) == 1 and re.search(message, left_out[0])
  assert "bad" in left_out[0] and "\n" not in left_out[0]


def test_lambda_zero_has_no_place_in_the_sweep(tmp_path):
  with pytest.raises(UserError, match="has lambda 0"):
    read_run(_folder(tmp_path / "a", lam=0.0))


def test_a_supervised_run_has_no_place_in_the_sweep(tmp_path):
  with pytest.raises(UserError, match="has learnt from labels"):
    read_run(_folder(tmp_path / "a", supervised=True))


def test_runs_on_other_data_are_not_compared(sweep, tmp_path, capsys):
  other = _folder(tmp_path / "other", source="cifar10")
  with pytest.raises(SystemExit):
    selection.run([*sweep, str(other)])
  error = capsys.readouterr().err
  assert "the runs have learnt from cifar10, digits" in error


def test_with_one_lambda_alpha_is_not_spoken_of(tmp_path, capsys):
  pytest.importorskip("matplotlib")
  runs = [
    str(_folder(tmp_path / f"r{i}", loss=2.0 + i, accuracy=0.9 - i / 10))
    for i in range(4)
  ]
  selection.run([*runs, f"--out={tmp_path / 's.png'}"])
  text = capsys.readouterr().out
  assert "C(0) = 1.00" in text and text.count("C(") == 1


@pytest.fixture
def sweep(tmp_path):
  """Six folders of the constructed sweep and an empty one."""
  for i, (lam, loss, accuracy) in enumerate(zip(LAMS, LOSSES, ACCURACY)):
    _folder(tmp_path / f"run{i}", lam=lam, loss=loss, accuracy=accuracy)
  (tmp_path / "run9").mkdir()
  return [str(path) for path in sorted(tmp_path.glob("run*"))]


def test_the_command_prints_ranks_and_draws(sweep, tmp_path, capsys):
  pytest.importorskip("matplotlib")
  out = tmp_path / "plots" / "s.svg"
  selection.run([*sweep, f"--out={out}"])
  text = capsys.readouterr().out
  assert re.search(r"left out: \S*run9 holds no run", text)
  assert "C(0.5) = 1.00" in text and "C(0) = " in text
  names = re.findall(r"^run\d", text, re.M)
  # Best accuracy first.
  assert names == [f"run{i}" for i in np.argsort(-ACCURACY)]
  drawn = out.read_text()
  assert "best: C(0.5) = 1.00" in drawn and "over 6 runs" in drawn
  assert drawn.count('<g id="axes_') == 5  # three panels, two colour bars


@pytest.mark.parametrize(
  "arguments, message",
  [
    (lambda runs: runs[-3:], "2 of 3 folders hold a finished run, three are"),
    (lambda runs: [*runs, "--probe=svm"], "0 of 7 folders.*no probe 'svm'"),
    (lambda runs: [*runs, "--out=x.tiff9"], "no picture at x.tiff9"),
  ],
)
def test_the_command_fails_with_one_line(sweep, capsys, arguments, message):
  pytest.importorskip("matplotlib")
  with pytest.raises(SystemExit) as stop:
    selection.run(arguments(sweep))
  assert stop.value.code == 2
  error = capsys.readouterr().err
  assert re.search(message, error) and error.count("\n") == 1
