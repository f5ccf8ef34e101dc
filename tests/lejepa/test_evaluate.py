"""Evaluation of a run: the right weights, data and baselines, and files."""

import errno
import json
import re

import jax
import numpy as np
import pytest

from jlejepa import evaluate as module
from jlejepa.data import from_arrays
from jlejepa.encoders import from_function
from jlejepa.evaluate import evaluate
from jlejepa.features import make_extract
from jlejepa.gaussianity import batch_sigreg, describe_sigreg
from jlejepa.probes import draw_shots, probe_table, rank_me, ridge
from jlejepa.runtime.checkpoint import Checkpoints
from jlejepa.runtime.config import load_config
from jlejepa.runtime.errors import UserError
from jlejepa.runtime.lock import FolderLock
from jlejepa.runtime.run_folder import RunFolder, read_config
from jlejepa.setup import build, first_state

NAMES = ["dark", "middle", "bright"]
# Two of the 64 pixels: the first tells the class, the other is noise.
TELLING, NOISY = 10, 40


def _encoder():
  """Picks pixels: the embedding is `x @ weights`, and nothing else."""

  def init(key, x):
    del key
    weights = np.zeros((x[0].size, 2), np.float32)
    weights[NOISY, 0] = weights[NOISY + 1, 1] = 1
    return {"weights": weights}

  apply = lambda params, x: x.reshape(len(x), -1) @ params["weights"]
  return from_function(init, apply)


def _data(count, seed):
  rng = np.random.default_rng(seed)
  images = rng.integers(256, size=(count, 64))
  labels = np.arange(count) % 3
  images[:, TELLING] = 80 * labels + rng.integers(40, size=count)
  images = images.reshape(count, 8, 8, 1).astype(np.uint8)
  return from_arrays(images, labels, NAMES)


TRAIN, TEST = _data(90, 0), _data(45, 1)


def _run(path, *, learnt=True, train=TRAIN):
  """Leaves the folder of a run that has learnt which pixel tells the class."""
  config = load_config(
    "lejepa.py:debug", ["evaluate.train_images=1000", "train.batch=32"]
  )
  with RunFolder.open(path, config) as folder:
    parts = build(config, train, encoder=_encoder())
    state = first_state(config, parts, train)
    if learnt:
      weights = np.array(state.params["encoder"]["weights"])
      weights[:] = 0
      weights[TELLING, 0] = weights[NOISY, 1] = 1
      params = state.params | {"encoder": {"weights": jax.numpy.array(weights)}}
      state = state.replace(params=params)
    Checkpoints(folder.checkpoints).save(7, state, {})
  row = {"step": 7, "epoch": 1.0, "prediction": 0.5, "probe_linear": 0.9}
  (path / "metrics.jsonl").write_text(json.dumps(row) + "\n")
  return path


def _evaluate(path, **more):
  given = dict(dataset=TRAIN, test=TEST, encoder=_encoder(), quiet=True)
  return evaluate(str(path), **given | more)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
  """A run's folder and the result of its evaluation, with everything on."""
  pytest.importorskip("matplotlib")
  path = _run(tmp_path_factory.mktemp("run") / "a")
  return path, _evaluate(path, kmeans=True)


def _pixels(dataset, *places):
  """What the encoder sees of two pixels, whatever the normalisation."""
  return dataset.images.reshape(len(dataset.images), -1)[:, places]


@pytest.mark.slow
def test_every_set_of_features_is_in_the_table(run):
  _, result = run
  assert result["step"] == 7
  rows = result["probes"]["rows"]
  dims = {name: row["dims"] for name, row in rows.items()}
  assert dims == {
    "embedding": 2,
    "last two layers": 4,
    "projection": 8,
    "untrained": 2,
    "untrained, last two": 4,
    "raw pixels": 64,
    "k-means patches": 1600,
  }


@pytest.mark.slow
def test_the_embedding_is_the_checkpoints_and_untrained_is_the_first(run):
  _, result = run
  rows = result["probes"]["rows"]
  labels = TRAIN.labels, TEST.labels
  for name, places in (
    ("embedding", (TELLING, NOISY)),
    ("untrained", (NOISY, NOISY + 1)),
  ):
    # Standardising probes see nothing of the views' normalisation.
    seen = tuple(_pixels(x, *places) for x in (TRAIN, TEST))
    wanted = probe_table({name: seen}, labels)["rows"][name]
    assert rows[name]["linear"] == pytest.approx(wanted["linear"], abs=0.03)
  # Not ridge: in one dimension it never names the class in the middle.
  assert rows["embedding"]["logistic"] > 0.9
  assert abs(rows["untrained"]["logistic"] - 1 / 3) < 0.2


@pytest.mark.slow
def test_pixels_and_few_shots_are_those_of_the_data(run):
  _, result = run
  row = result["probes"]["rows"]["raw pixels"]
  train, test = (x.images.reshape(len(x.images), -1) for x in (TRAIN, TEST))
  train, test = train.astype(np.float32), test.astype(np.float32)
  scores = ridge(train, TRAIN.labels, test)
  assert row["linear"] == np.mean(scores.argmax(axis=1) == TEST.labels)
  assert row["rank_me"] == pytest.approx(rank_me(train))
  assert set(row["few_shot"]["linear"]) == {"1", "2", "5", "10", "all"}
  assert len(draw_shots(TRAIN.labels, 5)) == len(
    row["few_shot"]["knn"]["5"]["draws"]
  )


@pytest.mark.slow
def test_scores_and_pictures_are_in_the_folder(run):
  path, result = run
  scores = json.loads((path / "scores.json").read_text())
  assert scores == result["probes"] | {"sigreg": result["sigreg"]}
  assert set(result["pictures"]) == {
    "training",
    "projections",
    "tokens",
    "neighbours",
  }
  for picture in result["pictures"].values():
    assert picture.startswith(str(path / "plots"))
    with open(picture, "rb") as file:
      assert file.read(4) == b"\x89PNG"


@pytest.mark.slow
def test_the_text_has_table_and_paths(run):
  path, result = run
  text = module.describe(result)
  assert text.startswith("after 7 steps\n")
  assert "k-means patches" in text and "labels per class" in text
  assert f"tokens: {path}/plots/tokens.png" in text


@pytest.mark.slow
def test_sigreg_of_the_projection_is_reported(run):
  path, result = run
  # Batches of 32, as the run trained, of the 90 training examples.
  assert result["sigreg"]["batch"] == 32
  config = read_config(path)
  parts = build(config, TRAIN, encoder=_encoder())
  template = first_state(config, parts, TRAIN)
  _, state, _ = Checkpoints(path / "checkpoints").restore(template)
  extract = jax.jit(make_extract(parts.model, parts.clean_view))
  z = extract(state.params, state.batch_stats, TRAIN.images)["projection"]
  assert result["sigreg"] == batch_sigreg(np.asarray(z), 32, num_slices=16)
  line = describe_sigreg(result["sigreg"])
  assert line in module.describe(result).splitlines()
  assert f"unbiased {result['sigreg']['unbiased']:.2f} (a Gaussian's" in line


@pytest.mark.slow
def test_neighbours_are_the_nearest_by_the_embedding(run, monkeypatch):
  path, _ = run
  drawn = {}

  def record(path, queries, found, *labels):
    drawn.update(queries=queries, found=found, labels=labels)

  monkeypatch.setattr("jlejepa.pictures.neighbour_rows", record)
  _evaluate(path, few_shot=False, test_images=45)
  assert drawn["queries"].shape == (6, 8, 8, 1)
  assert drawn["found"].shape == (6, 8, 8, 8, 1)
  np.testing.assert_array_equal(drawn["queries"], TEST.images[:6])
  wanted, near = drawn["labels"]
  assert wanted == [NAMES[label] for label in TEST.labels[:6]]
  # What the nearest are called is what they are.
  number = {image.tobytes(): i for i, image in enumerate(TRAIN.images)}
  for row, names in zip(drawn["found"], near):
    index = [number[image.tobytes()] for image in row]
    assert names == [NAMES[TRAIN.labels[i]] for i in index]
  same = np.mean([[n == w for n in row] for w, row in zip(wanted, near)])
  assert same > 0.6


def test_a_run_that_has_not_moved_equals_its_untrained_self(tmp_path):
  path = _run(tmp_path / "a", learnt=False)
  result = _evaluate(path, pictures=False, draws=2)
  assert result["pictures"] == {} and not (path / "plots").exists()
  rows = result["probes"]["rows"]
  assert rows["embedding"] == rows["untrained"]
  assert rows["last two layers"] == rows["untrained, last two"]


@pytest.mark.slow
def test_limits_take_some_of_the_examples(run):
  path, _ = run
  result = _evaluate(
    path, train_images=30, test_images=12, few_shot=False, pictures=False
  )
  assert result["probes"]["train"] == 30 and result["probes"]["test"] == 12
  assert "few_shot" not in result["probes"]["rows"]["embedding"]


@pytest.mark.slow
def test_data_without_labels_gives_ranks_and_pictures(tmp_path, capsys):
  pytest.importorskip("matplotlib")
  bare = from_arrays(TRAIN.images)
  path = _run(tmp_path / "a", train=bare)
  result = _evaluate(path, dataset=bare, test=None, quiet=False)
  assert "probes" not in result and not (path / "scores.json").exists()
  # The last 16 of 90 are asked for their neighbours, the rest are the bank.
  seen = _pixels(TRAIN, TELLING, NOISY)[:74] / 255
  assert result["sigreg"]["batch"] == 32 and result["sigreg"]["exact"] > 1.1
  assert 1 < result["ranks"]["embedding"]["rank_me"] <= 2
  assert result["ranks"]["embedding"]["effective_rank"] == pytest.approx(
    _participation(seen), rel=1e-3
  )
  assert set(result["pictures"]) > {"tokens", "neighbours", "projections"}
  text = capsys.readouterr().out
  assert "embedding: RankMe" in text and "no labelled test examples" in text
  assert "SIGReg of the projection, batches of 32: unbiased" in text


def _participation(x):
  values = np.linalg.eigvalsh(np.cov(x.T))
  return values.sum() ** 2 / np.sum(values**2)


@pytest.mark.slow
def test_a_missing_library_costs_the_pictures_alone(run, monkeypatch, capsys):
  path, _ = run

  def broken(*arguments):
    raise ImportError("No module named 'matplotlib'")

  for name in ("_figure", "_save"):
    monkeypatch.setattr(f"jlejepa.pictures.{name}", broken)
  result = _evaluate(path, few_shot=False)
  assert result["pictures"] == {} and "probes" in result
  errors = capsys.readouterr().err.splitlines()
  assert len(errors) == 4
  assert all(re.match(r"no \w+: No module named 'mat", e) for e in errors)


def test_a_full_disk_is_one_line(tmp_path, monkeypatch):
  path = _run(tmp_path / "run")

  def full(*args, **kwargs):
    raise OSError(errno.ENOSPC, "No space left on device")

  monkeypatch.setattr(module, "atomic_write_json", full)
  with pytest.raises(UserError, match=r"cannot be written .*No space left"):
    _evaluate(path)


def test_a_folder_without_a_checkpoint_or_in_use_is_refused(tmp_path):
  with pytest.raises(UserError, match="holds no run"):
    _evaluate(tmp_path)
  path = tmp_path / "a"
  _run(path)
  lock = FolderLock(path)
  with pytest.raises(UserError, match="is in use by process"):
    _evaluate(path)
  lock.release()
  for folder in (path / "checkpoints").iterdir():
    folder.rename(path / "elsewhere")
  with pytest.raises(UserError, match="holds no checkpoint yet"):
    _evaluate(path)


@pytest.mark.slow
def test_data_that_cannot_be_probed_is_one_line(run):
  path, _ = run
  few = TRAIN._replace(labels=np.where(TRAIN.labels == 1, -1, TRAIN.labels))
  with pytest.raises(UserError, match=r"class 1 of 0 \.\. 2 has no training"):
    _evaluate(path, dataset=few)


@pytest.mark.parametrize(
  "arguments, message",
  [
    ([], "the flag --workdir=... is missing"),
    (["--workdir=nowhere"], "holds no run"),
    (["--workdir=nowhere", "--draws=0"], "draws must be an integer of at"),
    (["--workdir=nowhere", "--train_images=-1"], "train_images must be an"),
    (["--workdir=nowhere", "--fewshot"], "did you mean --few_shot"),
  ],
)
def test_the_command_fails_with_one_line(
  tmp_path, monkeypatch, capsys, arguments, message
):
  monkeypatch.chdir(tmp_path)
  with pytest.raises(SystemExit) as stop:
    module.run(arguments)
  assert stop.value.code == 2
  error = capsys.readouterr().err
  assert message in error and error.count("\n") == 1


def test_the_command_evaluates(monkeypatch, capsys):
  seen = {}
  monkeypatch.setattr(
    module, "evaluate", lambda *args, **kwargs: seen.update(kwargs, path=args)
  )
  module.run(["--workdir=a", "--nofew_shot", "--kmeans", "--train_images=9"])
  assert seen == dict(
    path=("a",),
    train_images=9,
    test_images=None,
    few_shot=False,
    draws=3,
    kmeans=True,
    pictures=True,
  )
