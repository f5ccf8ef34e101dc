import json
import math
import sys
import warnings

import jax.numpy as jnp
import numpy as np
import pytest

from jlejepa.runtime.metrics import MetricsWriter, read_metrics


def writer(folder, **kwargs):
  return MetricsWriter(folder, tensorboard=False, **kwargs)


def write_rows(folder, rows):
  with writer(folder) as metrics:
    for row in rows:
      metrics.write(row)


def test_rows_come_back_in_order(tmp_path):
  rows = [{"step": 1, "loss": 0.1, "task": "a", "done": False, "x": None}]
  rows.append({"step": 2, "loss": 1e-30})
  write_rows(tmp_path, rows)
  assert read_metrics(tmp_path) == rows


def test_a_row_is_readable_before_closing(tmp_path):
  with writer(tmp_path) as metrics:
    metrics.write({"step": 1})
    assert read_metrics(tmp_path) == [{"step": 1}]


def test_array_scalars_become_numbers(tmp_path):
  row = {
    "f": jnp.float32(0.5),
    "h": jnp.bfloat16(0.5),
    "i": np.int64(3),
    "b": np.bool_(True),
  }
  write_rows(tmp_path, [row])
  (got,) = read_metrics(tmp_path)
  assert got == {"f": 0.5, "h": 0.5, "i": 3, "b": True}
  assert [type(got[key]) for key in "fhib"] == [float, float, int, bool]


@pytest.mark.parametrize("value", [np.ones(1), [1, 2], {}, object()])
def test_what_is_no_scalar_is_refused_by_name(tmp_path, value):
  with writer(tmp_path) as metrics:
    with pytest.raises(ValueError, match="metric 'grad' must be a scalar"):
      metrics.write({"grad": value})
    metrics.write({"step": 1})
  assert read_metrics(tmp_path) == [{"step": 1}]


def test_nan_and_infinities_are_strict_json_and_come_back(tmp_path):
  row = {"a": math.nan, "b": math.inf, "c": -math.inf, "d": np.float32("nan")}
  write_rows(tmp_path, [row])
  line = (tmp_path / "metrics.jsonl").read_text()

  def refuse(name):
    raise AssertionError(f"{name} is not JSON")

  json.loads(line, parse_constant=refuse)
  (got,) = read_metrics(tmp_path)
  assert math.isnan(got["a"]) and math.isnan(got["d"])
  assert (got["b"], got["c"]) == (math.inf, -math.inf)


@pytest.mark.parametrize("torn", ['{"step": 3, "lo', "{", '{"step": 3}'])
def test_torn_last_line_is_dropped_on_reading_and_on_opening(tmp_path, torn):
  write_rows(tmp_path, [{"step": 1}, {"step": 2}])
  with open(tmp_path / "metrics.jsonl", "a") as file:
    file.write(torn)
  assert [row["step"] for row in read_metrics(tmp_path)] == [1, 2]
  write_rows(tmp_path, [{"step": 3}])
  assert [row["step"] for row in read_metrics(tmp_path)] == [1, 2, 3]


def test_bad_line_in_the_middle_is_left_out_with_a_warning(tmp_path):
  text = '{"step": 1}\n{"ste\n[3]\n\xff\n{"step": 2}\n'
  (tmp_path / "metrics.jsonl").write_bytes(text.encode("latin-1"))
  with pytest.warns(UserWarning, match="left out line"):
    rows = read_metrics(tmp_path)
  assert rows == [{"step": 1}, {"step": 2}]


def test_no_file_gives_no_rows(tmp_path):
  assert read_metrics(tmp_path) == []


def test_truncation_and_rewriting_give_the_same_bytes(tmp_path):
  rows = [{"step": step, "loss": 0.1 * step} for step in range(1, 7)]
  rows[2]["loss"] = math.nan
  write_rows(tmp_path, rows)
  path = tmp_path / "metrics.jsonl"
  uninterrupted = path.read_bytes()
  with writer(tmp_path) as metrics:
    metrics.truncate_after("step", 3)
    assert [row["step"] for row in read_metrics(tmp_path)] == [1, 2, 3]
    for row in rows[3:]:
      metrics.write(row)
  assert path.read_bytes() == uninterrupted


def test_rows_without_the_key_go_with_the_row_before(tmp_path):
  rows = [{"a": 0}, {"step": 1}, {"score": 1}, {"step": 2}, {"score": 2}]
  write_rows(tmp_path, rows)
  with writer(tmp_path) as metrics:
    metrics.truncate_after("step", 1)
  assert read_metrics(tmp_path) == rows[:3]


def test_truncation_before_the_first_step_removes_everything(tmp_path):
  write_rows(tmp_path, [{"a": 0}, {"step": 0}, {"step": 1}])
  with writer(tmp_path) as metrics:
    metrics.truncate_after("step", -1)
  assert read_metrics(tmp_path) == []


def test_tensorboard_files_stand_beside(tmp_path):
  pytest.importorskip("tensorboardX")
  with MetricsWriter(tmp_path) as metrics:
    metrics.write({"step": 1, "loss": 0.5, "task": "a", "nan": math.nan})
    metrics.write({"loss": 0.25})
  files = list((tmp_path / "tensorboard").iterdir())
  assert len(files) == 1
  assert b"loss" in files[0].read_bytes()


def test_without_tensorboardx_one_warning_and_the_rows(tmp_path, monkeypatch):
  monkeypatch.setitem(sys.modules, "tensorboardX", None)
  with MetricsWriter(tmp_path) as metrics:
    with pytest.warns(UserWarning, match="no TensorBoard files") as caught:
      metrics.write({"step": 1})
    assert len(caught) == 1
    with warnings.catch_warnings():
      warnings.simplefilter("error")
      metrics.write({"step": 2})
  assert [row["step"] for row in read_metrics(tmp_path)] == [1, 2]


def test_failing_tensorboard_does_not_stop_the_run(tmp_path):
  pytest.importorskip("tensorboardX")
  (tmp_path / "tensorboard").write_text("a file where a folder should be")
  with MetricsWriter(tmp_path) as metrics:
    with pytest.warns(UserWarning, match="no TensorBoard files"):
      metrics.write({"step": 1})
    metrics.write({"step": 2})
  assert len(read_metrics(tmp_path)) == 2


def test_tensorboard_hides_what_a_resume_writes_again(tmp_path, monkeypatch):
  board = pytest.importorskip("tensorboardX")
  asked = []

  class Spy(board.SummaryWriter):
    def __init__(self, folder, purge_step, **kwargs):
      asked.append(purge_step)
      super().__init__(folder, purge_step=purge_step, **kwargs)

  monkeypatch.setattr(board, "SummaryWriter", Spy)
  for resumed in (None, 3):
    with MetricsWriter(tmp_path) as metrics:
      if resumed is not None:
        metrics.truncate_after("step", resumed)
      metrics.write({"step": 4})
  assert asked == [None, 4]
