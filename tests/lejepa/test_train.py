"""The training loop of LeJEPA, on digits and with a tiny encoder."""

import json
import os
import signal
import time

import jax
import numpy as np
import pytest
from PIL import Image

import jlejepa
from jlejepa.data import from_arrays
from jlejepa.encoders import from_function
from jlejepa.report import write_views
from jlejepa.runtime.checkpoint import CheckpointError, Checkpoints
from jlejepa.runtime.config import load_config
from jlejepa.runtime.errors import UserError
from jlejepa.runtime.metrics import read_metrics
from jlejepa.runtime.nonfinite import NonFiniteError
from jlejepa.runtime.run_folder import RunFolder
from jlejepa.setup import build
from jlejepa.train import run
from jlejepa.views import Views

TIMES = {"minutes", "cpu_minutes", "seconds_probe"}


@pytest.fixture(scope="module")
def encoder():
  def init(key, x):
    return {"w": jax.random.normal(key, (x[0].size, 6)) / 4}

  return from_function(init, lambda p, x: x.reshape(len(x), -1) @ p["w"])


@pytest.fixture(scope="module")
def digits():
  from sklearn.datasets import load_digits

  data = load_digits()
  images = (data.images[:320] / 16).astype(np.float32)[..., None]
  train = from_arrays(images[:256], data.target[:256])
  return train, from_arrays(images[256:], data.target[256:320])


def config(*overrides):
  tiny = (
    "views.num_local=0", "projector.layers=1", "runtime.log_every=4",
    "runtime.checkpoint_every=3", "train.epochs=3", "evaluate.every=2",
    "optimizer.warmup_epochs=0.5",
  )  # fmt: skip
  return load_config("lejepa.py:debug", [*tiny, *overrides])


@pytest.fixture(scope="module")
def fit(encoder, digits):
  def call(workdir, *overrides, **kwargs):
    train, test = digits
    kwargs = dict(dataset=train, test=test, encoder=encoder) | kwargs
    return jlejepa.fit(config(*overrides), str(workdir), quiet=True, **kwargs)

  return call


@pytest.fixture(scope="module")
def finished(fit, tmp_path_factory):
  workdir = tmp_path_factory.mktemp("run")
  return workdir, fit(workdir)


def rows(workdir):
  return [
    {k: v for k, v in row.items() if k not in TIMES}
    for row in read_metrics(workdir)
  ]


def last_arrays(workdir):
  """Returns the newest checkpoint's arrays, read without its template."""
  checkpoints = Checkpoints(workdir / "checkpoints")
  step = checkpoints.steps()[-1]
  manifest = json.loads(
    (workdir / "checkpoints" / f"{step}" / "manifest.json").read_text()
  )
  import orbax.checkpoint as ocp

  state = ocp.Checkpointer(ocp.StandardCheckpointHandler()).restore(
    checkpoints.directory / f"{step}" / "state"
  )
  assert set(state) == set(manifest["content"]["arrays"])
  return step, state


def test_a_run_writes_what_its_folder_promises(finished):
  workdir, result = finished
  assert result["exit_code"] == 0 and result["step"] == 12
  steps = [row["step"] for row in rows(workdir)]
  assert steps == [4, 8, 12]
  probed = [row["step"] for row in rows(workdir) if "probe_linear" in row]
  assert probed == [8, 12]
  assert (workdir / "plots" / "views.png").stat().st_size > 0
  scores = json.loads((workdir / "scores.json").read_text())
  assert scores["rows"]["raw pixels"]["dims"] == 64
  assert scores == json.loads(json.dumps(result["probes"]))
  # The second probe of a plain linear map beats chance, which is 10%.
  assert result["probe_linear"] > 0.3


def test_a_row_is_the_mean_of_its_steps(fit, finished, tmp_path):
  fit(tmp_path, "runtime.log_every=1")
  every = rows(tmp_path)
  for row, start in zip(rows(finished[0]), (0, 4, 8)):
    wanted = np.mean([r["prediction"] for r in every[start : start + 4]])
    assert row["prediction"] == pytest.approx(wanted, rel=1e-6)


def test_the_picture_of_views_shows_what_the_encoder_sees(
  digits, encoder, tmp_path
):
  whole = ["global_spec.scale=(1.0,1.0)", "global_spec.ratio=(1.0,1.0)"]
  options = config(*(f"views.{text}" for text in whole))
  parts = build(options, digits[0], encoder=encoder)
  with RunFolder.open(tmp_path, options) as folder:
    made = write_views(folder, options, parts, digits[0])
  assert made == {"views": str(tmp_path / "plots" / "views.png")}
  sheet = np.asarray(Image.open(made["views"]))
  # Eight images and their two views, 8 pixels shown as 96, with 2 in between.
  assert sheet.shape == (8 * 98 + 2, 3 * 98 + 2, 3)
  chosen = np.linspace(0, 255, 8).astype(int)
  for row, image in enumerate(digits[0].images[chosen]):
    for column in range(3):
      top, left = 2 + 98 * row, 2 + 98 * column
      cell = sheet[top : top + 96 : 12, left : left + 96 : 12]
      # A view of the whole image is the image, but for the rounding.
      np.testing.assert_allclose(cell, np.repeat(image, 3, -1), atol=1)


class Interrupted:
  """Images that send SIGTERM when a training batch is read."""

  def __init__(self, images, stop_at):
    self.shape, self.dtype = images.shape, images.dtype
    self._images, self._left = images, stop_at

  def __len__(self):
    return len(self._images)

  def __getitem__(self, index):
    # 64: no batch of the probes, nor the examples of the first state.
    self._left -= len(index) == 64
    if self._left == 0:
      os.kill(os.getpid(), signal.SIGTERM)
    return self._images[index]


@pytest.mark.slow
@pytest.mark.parametrize("stop_at", [1, 6])
def test_a_resumed_run_is_bit_equal(fit, finished, digits, tmp_path, stop_at):
  """Stopped in the middle of a row, before and after the first checkpoint."""
  images = Interrupted(digits[0].images, stop_at)
  stopped = fit(tmp_path, dataset=digits[0]._replace(images=images))
  assert stopped["exit_code"] == 75 and stopped["step"] < 12
  again = fit(tmp_path)
  workdir, result = finished
  assert rows(tmp_path) == rows(workdir)
  assert again["probes"] == result["probes"]
  (step, a), (other, b) = last_arrays(workdir), last_arrays(tmp_path)
  assert step == other == 12
  for name, array in a.items():
    np.testing.assert_array_equal(array, b[name], err_msg=name)


def test_a_finished_run_trains_no_further(fit, finished):
  workdir, result = finished
  before = rows(workdir)
  views = workdir / "plots" / "views.png"
  written = views.stat().st_mtime_ns
  again = fit(workdir)
  assert rows(workdir) == before
  assert views.stat().st_mtime_ns == written
  assert again["probes"] == result["probes"]


def test_time_that_is_up_at_once_is_no_error(fit, tmp_path):
  result = fit(tmp_path, "runtime.max_minutes=1e-9")
  assert result["exit_code"] == 0 and result["pictures"] == {}


@pytest.mark.slow
def test_the_step_compiles_once(fit, tmp_path, monkeypatch):
  from jlejepa import trainer as module

  made = []
  original = module.make_train_step

  def spy(*args):
    step = original(*args)

    def traced(*inputs):
      made.append(1)
      return step(*inputs)

    return traced

  monkeypatch.setattr(module, "make_train_step", spy)
  fit(tmp_path)
  assert len(made) == 1


@pytest.mark.slow
@pytest.mark.parametrize("lam", [0.0, 0.01])
def test_collapse_is_said_in_plain_words_and_comes_of_no_sigreg_alone(
  digits, encoder, tmp_path, capsys, lam
):
  options = ["train.epochs=30", "optimizer.learning_rate=0.06"]
  jlejepa.fit(
    config(f"loss.lam={lam}", "evaluate.every=0", *options),
    str(tmp_path),
    dataset=digits[0],
    encoder=encoder,
  )
  text = capsys.readouterr().err
  spoken = lam == 0
  assert ("collapse at step" in text) == spoken
  assert ("config.loss.lam = 0 now" in text) == spoken
  last = rows(tmp_path)[-1]
  assert (last["spread"] < 0.1) == spoken
  assert spoken or last["effective_rank"] > 1.5


def test_vectors_with_views_of_ones_own(tmp_path, encoder):
  x = np.random.default_rng(0).normal(size=(128, 5)).astype(np.float32)

  def views(key, example):
    noisy = example + 0.1 * jax.random.normal(key, (2, 5))
    return Views(noisy, noisy[:0])

  result = jlejepa.fit(
    config("train.epochs=2"),
    str(tmp_path),
    dataset=from_arrays(x),
    encoder=encoder,
    views=views,
    quiet=True,
  )
  assert result["step"] == 4
  assert "probes" not in result and "probe_accuracy" not in result
  assert np.isfinite(result["prediction"])
  assert not (tmp_path / "plots" / "views.png").exists()


def test_bad_gradients_end_a_run_with_the_weights_before(tmp_path, encoder):
  x = np.zeros((128, 5), np.float32)

  def views(key, example):
    bad = jax.numpy.full((2, 5), jax.numpy.nan) * example
    return Views(bad, bad[:0])

  with pytest.raises(NonFiniteError, match="12 gradients up to update 12 "):
    jlejepa.fit(
      config("train.epochs=12"),
      str(tmp_path),
      dataset=from_arrays(x),
      encoder=encoder,
      views=views,
      quiet=True,
    )
  # The inputs of the last update, to make it again in a debugger.
  (kept,) = (tmp_path / "debug").iterdir()
  assert kept.name == "11"


def test_a_checkpoint_that_failed_ends_the_run_after_the_step(
  tmp_path, encoder, monkeypatch
):
  def full_disk(self, *_):
    raise OSError(28, "No space left on device")

  monkeypatch.setattr(Checkpoints, "_complete", full_disk)
  rows = []

  def callback(row):  # Every step: the thread has its time to fail.
    rows.append(row)
    time.sleep(0.5)

  with pytest.raises(CheckpointError, match="/2 could not be written"):
    jlejepa.fit(
      config(
        "train.epochs=12", "runtime.checkpoint_every=2", "runtime.log_every=1"
      ),
      str(tmp_path),
      dataset=from_arrays(
        np.random.default_rng(0).normal(size=(128, 5)).astype(np.float32)
      ),
      encoder=encoder,
      views=lambda key, x: Views(x[None].repeat(2, 0), x[None][:0]),
      quiet=True,
      callback=callback,
    )
  # The save after the fourth row would have said it too.
  assert len(rows) == 3


@pytest.mark.parametrize(
  "overrides, words",
  [
    (["train.batch=1"], "config.train.batch=1"),
    (["train.batch=512"], "config.train.batch=512 is more than the 256"),
    (["loss.lam=1.5"], "config.loss.lam must be a number from 0 to 1"),
    (["loss.num_points=16"], "config.loss.num_points=16 must be odd"),
    (["loss.test=wald"], "config.loss.test must be one of"),
    (["views.global_spec.size=64"], "more pixels than the images have"),
    (["optimizer.warmup_epochs=9"], "config.optimizer.warmup_epochs"),
    (["encoder.name=vgg"], "config.encoder.name must be one of"),
    (["encoder.compact.widths=(8,)"], "one number per stage"),
    (["projector.layers=0", "predictor.layers=1"], "needs a projector"),
  ],
)
def test_what_does_not_fit_is_one_line(fit, tmp_path, overrides, words):
  with pytest.raises(UserError) as error:
    fit(tmp_path, *overrides)
  assert words in str(error.value)
  assert "\n" not in str(error.value)
  assert not (tmp_path / "checkpoints").exists()


@pytest.mark.parametrize(
  "labels, side, words",
  [
    (np.arange(64), 8, "class 10 of 0 .. 63 has no training sample"),
    (np.arange(64) % 10, 6, "shape [8, 8, 1], test examples [6, 8, 1]"),
  ],
)
def test_test_examples_that_cannot_be_asked(fit, tmp_path, labels, side, words):
  test = from_arrays(np.zeros((64, side, 8, 1), np.uint8), labels)
  with pytest.raises(UserError) as error:
    fit(tmp_path / "run", test=test)
  assert words in str(error.value) and "\n" not in str(error.value)
  assert not (tmp_path / "run").exists()


def test_labels_that_are_all_the_same_teach_no_probe(fit, digits, tmp_path):
  one = [data._replace(labels=0 * data.labels) for data in digits]
  with pytest.raises(UserError, match="needs at least two classes"):
    fit(tmp_path / "run", dataset=one[0], test=one[1])
  assert not (tmp_path / "run").exists()


def test_the_command_answers_a_mistake_with_code_2(tmp_path, capsys):
  with pytest.raises(SystemExit) as leaving:
    run([f"--workdir={tmp_path}", "--config=lejepa.py:debug,data=no_such_set"])
  assert leaving.value.code == 2
  text = capsys.readouterr().err
  assert text.startswith("error: ") and text.count("\n") == 1
