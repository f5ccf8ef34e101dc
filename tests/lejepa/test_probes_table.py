"""The table of probes: right numbers in the right cells."""

import json
import re

import numpy as np
import pytest

from jlejepa import effective_rank
from jlejepa.probes import (
  PROBES,
  accuracy,
  draw_shots,
  format_table,
  knn,
  probe_table,
  quick_probe,
  rank_me,
  ridge,
)
from jlejepa.probes.linear import spread


@pytest.fixture(scope="module")
def sets():
  """Features that tell, features of noise, and labels: 120 and 60 samples."""
  rng = np.random.default_rng(0)
  y = np.arange(180) % 3
  good = np.eye(3)[y] * 4 + rng.normal(size=(180, 3))
  noise = rng.normal(size=(180, 5))
  split = lambda x: (x[:120].astype(np.float32), x[120:].astype(np.float32))
  features = {"good": split(good), "noise": split(noise)}
  return features, (y[:120], y[120:])


@pytest.fixture(scope="module")
def table(sets):
  return probe_table(*sets, probes=PROBES, shots=(1, 5, "all"), ranks=True)


def test_every_cell_is_what_the_probe_says(sets, table):
  features, (train_y, test_y) = sets
  for name, (a, b) in features.items():
    row = table["rows"][name]
    for probe, function in PROBES.items():
      wanted = accuracy(function(a, train_y, b), test_y)
      assert row[probe] == wanted, probe
    assert row["dims"] == a.shape[1]
    assert row["rank_me"] == rank_me(a)
    assert row["effective_rank"] == effective_rank(a)
    for shots in (1, 5):
      draws = draw_shots(train_y, shots)
      few = [
        accuracy(ridge(a[i], train_y[i], b, wd=1, scale=spread(a)), test_y)
        for i in draws
      ]
      found = row["few_shot"]["linear"][str(shots)]
      assert found["draws"] == few
      assert found["mean"] == pytest.approx(np.mean(few))
      assert found["std"] == pytest.approx(np.std(few, ddof=1))
      near = [
        accuracy(knn(a[i], train_y[i], b, k=shots, weights="softmax"), test_y)
        for i in draws
      ]
      assert row["few_shot"]["knn"][str(shots)]["draws"] == near
    assert row["few_shot"]["linear"]["all"]["mean"] == row["linear"]
    assert row["few_shot"]["knn"]["all"]["mean"] == row["knn_weighted"]


def test_more_labels_help_where_there_is_something_to_learn(table):
  good = table["rows"]["good"]["few_shot"]["linear"]
  assert (
    0.5 < good["1"]["mean"] < good["5"]["mean"] <= good["all"]["mean"] + 0.05
  )
  noise = table["rows"]["noise"]
  assert all(abs(noise[probe] - 1 / 3) < 0.2 for probe in PROBES)


def test_chance_is_said(sets, table):
  assert table["chance"]["random"] == pytest.approx(1 / 3)
  features, _ = sets
  train_y = np.array([0] * 60 + [1] * 40 + [2] * 20)
  test_y = np.array([0] * 6 + [1] * 54)
  unequal = probe_table(features, (train_y, test_y), shots=())
  assert unequal["chance"]["majority"] == pytest.approx(0.1)


def test_the_table_is_json_and_the_text_has_its_numbers(table):
  assert json.loads(json.dumps(table)) == table
  lines = format_table(table).splitlines()
  full, few, chance = lines[:3], lines[4:7], lines[7:]
  for block in (full, few):
    assert len({len(line) for line in block}) == 1
  good = table["rows"]["good"]
  cells = dict(zip(*(re.split("  +", line) for line in full[:2])))
  assert cells["dims"] == "3" and cells["mlp"] == f"{100 * good['mlp']:.1f}"
  assert full[1].endswith(
    f"{good['rank_me']:.1f}  {good['effective_rank']:14.1f}"
  )
  shots = [
    good["few_shot"][kind][n] for kind in ("linear", "knn") for n in "15"
  ]
  wanted = [f"{100 * x['mean']:.1f}±{100 * x['std']:.1f}" for x in shots]
  assert few[1].split() == ["good", *wanted]
  assert chance[0].startswith("chance 33.3, commonest class 33.3; 120 training")


def test_quick_probe_agrees_with_the_table(sets, table):
  features, (train_y, test_y) = sets
  a, b = features["good"]
  row = table["rows"]["good"]
  assert quick_probe(a, train_y, b, test_y) == {
    "linear": row["linear"],
    "knn": row["knn"],
  }


def test_faults_name_the_set_and_the_argument(sets):
  features, labels = sets
  broken = features | {
    "bad": (features["good"][0] * np.nan, features["good"][1])
  }
  with pytest.raises(ValueError, match="bad: training features: 120 of 120"):
    probe_table(broken, labels)
  with pytest.raises(ValueError, match="no probe 'svm': there are linear"):
    probe_table(features, labels, probes=["svm"])
  with pytest.raises(ValueError, match="shots must be integers"):
    probe_table(features, labels, shots=(0,))
  with pytest.raises(ValueError, match="no features to probe"):
    probe_table({}, labels)
