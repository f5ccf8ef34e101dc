"""A machine that fails under a run: disk, clock, signals, numbers, workers."""

import ast
import functools
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from jlejepa.runtime.errors import UserError
from jlejepa.runtime.metrics import read_metrics
from jlejepa.runtime.nonfinite import NonFiniteError
from jplanet import report, rerun, train, trainer
from jplanet.collect import collect, random_policy
from jplanet.envs import Lockstep
from jplanet.scores import read_scores
from jplanet.train import fit
from jplanet.trainer import Trainer

ROOT = Path(__file__).parents[2]


# jit finds again what it has compiled for the same functions.
@functools.cache
def build_once(text, action_dim):
  return BUILD(ConfigDict(json.loads(text)), action_dim)


BUILD = trainer.build
STEP_ONCE = functools.cache(trainer.make_train_step)


@pytest.fixture(scope="module", autouse=True)
def compiled_once():
  def build(config, action_dim):
    sections = ("env", "model", "loss", "optimizer", "planner")
    parts = {name: config[name].to_dict() for name in sections}
    parts["train"] = {"overlap": config.train.overlap}
    return build_once(json.dumps(parts, sort_keys=True), action_dim)

  with pytest.MonkeyPatch.context() as monkeypatch:
    monkeypatch.setattr(report, "write_pictures", lambda *args: {})
    monkeypatch.setattr(trainer, "build", build)
    monkeypatch.setattr(trainer, "make_train_step", STEP_ONCE)
    yield


@pytest.fixture(scope="module")
def whole(
  compiled_once, tiny_config, dial, tmp_path_factory, rows_without_times
):
  """A run that nothing has happened to."""
  path = tmp_path_factory.mktemp("whole")
  fit(tiny_config("runtime.checkpoint_every=1"), path, env=dial, quiet=True)
  return SimpleNamespace(
    path=path,
    read=rows_without_times,
    rows=rows_without_times(path),
    returns=returns_of(path),
  )


def returns_of(workdir):
  return read_scores(workdir)["returns"]


def assert_whole(workdir, whole):
  assert whole.read(workdir) == whole.rows
  assert returns_of(workdir) == whole.returns


@pytest.mark.parametrize("limit", [100, 5000])
def test_a_full_disk_stops_the_run_and_room_lets_it_go_on(
  limit, whole, tiny_config, dial, tmp_path, limit_files
):
  """Rows, episodes and checkpoints meet the limit in turn."""
  config = tiny_config("runtime.checkpoint_every=1")
  if limit > 1000:
    fit(
      config,
      tmp_path,
      env=lambda: dial(on_step=raise_after(40)),
      quiet=True,
    )
  limit_files(limit)
  with pytest.raises(UserError, match=r"File too large|could not be written"):
    fit(config, tmp_path, env=dial, quiet=True)
  limit_files(None)
  assert not list(tmp_path.glob("episodes/*.partial"))
  fit(config, tmp_path, env=dial, quiet=True)
  assert_whole(tmp_path, whole)


def raise_after(at):
  """Returns a function that sends SIGTERM at its call number `at`."""
  calls = []

  def on_step():
    calls.append(None)
    if len(calls) == at:
      os.kill(os.getpid(), signal.SIGTERM)
      # So short an episode would be over before the main thread sees it.
      time.sleep(0.3)

  return on_step


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path):
  """As another user would see it: root writes anywhere otherwise."""
  if os.geteuid() == 0 and shutil.which("setpriv") is None:
    pytest.skip("root may write anywhere")
  code = "import sys; from jlejepa.runtime.run_folder import RunFolder;"
  code += "from jlejepa.runtime.errors import exit_on_user_error;"
  code += "from ml_collections import ConfigDict\n"
  code += "with exit_on_user_error(): RunFolder.open(sys.argv[1], ConfigDict())"
  command = [sys.executable, "-c", code]
  if os.geteuid() == 0:
    # Not the right of root to overrule a folder's permissions.
    caps = "-dac_override,-dac_read_search"
    command = ["setpriv", f"--bounding-set={caps}", *command]
  for path, mode in ((tmp_path, "new"), (tmp_path / "old", "")):
    path.mkdir(exist_ok=True)
    path.chmod(0o500)
    result = subprocess.run(
      [*command, str(path / mode)], capture_output=True, text=True, cwd=ROOT
    )
    path.chmod(0o700)
    assert result.returncode == 2, result.stderr
    assert result.stderr.count("\n") == 1
    assert "Permission denied" in result.stderr


def test_odd_names_of_folders_work(whole, tiny_config, dial, tmp_path):
  config = tiny_config("runtime.checkpoint_every=1")
  names = (
    "a b",
    "ü文",
    "two\nlines",
    "q?u#o%20t&e'\"",
    "-dash",
    "a:b",
    "$HOME",
  )
  workdir = tmp_path.joinpath(*names)
  stopped = fit(
    config, workdir, env=lambda: dial(on_step=raise_after(50)), quiet=True
  )
  assert stopped["exit_code"] == 75
  fit(config, workdir, env=dial, quiet=True)
  assert_whole(workdir, whole)
  assert [path.name for path in tmp_path.iterdir()] == ["a b"]


def test_a_name_that_is_no_text_is_refused(tiny_config, dial):
  with pytest.raises(UserError, match="no folder name"):
    fit(tiny_config(), os.fsdecode(b"/tmp/\xff\xfe"), env=dial)


def test_a_clock_that_jumps_changes_nothing(
  whole, tiny_config, dial, tmp_path, monkeypatch
):
  real, jumps = time.time, iter(range(10**6))
  monkeypatch.setattr(
    time, "time", lambda: real() + (-1) ** next(jumps) * 86_400 * 365
  )
  config = tiny_config("runtime.checkpoint_every=1", "runtime.max_minutes=60")
  result = fit(config, tmp_path, env=dial, quiet=True)
  assert_whole(tmp_path, whole)
  assert 0 < result["minutes"] < 10
  assert all(
    0 <= row["seconds_collect"] < 600 for row in read_metrics(tmp_path)
  )


# 12 steps an episode: 1-24 the seed episodes, 25-36 collecting, then 12 of an
# evaluation after the fourth, and of another at the end, after step 72.
@pytest.mark.parametrize("at", [15, 24, 75])
def test_a_signal_in_any_phase_saves_and_loses_nothing(
  at, whole, tiny_config, dial, tmp_path
):
  config = tiny_config("runtime.checkpoint_every=1")
  calls = []
  stopping = raise_after(at)
  result = fit(config, tmp_path, env=lambda: dial(on_step=stopping), quiet=True)
  assert result["exit_code"] == 75
  kept = result["episodes"]
  # The episode under way goes on beside the main thread, which sees the signal;
  # so short a one may be over before it is told to stop.
  before = {15: 1, 24: 1, 75: 5}[at]
  assert before <= kept <= min(5, before + 1)
  result = fit(
    config,
    tmp_path,
    env=lambda: dial(on_step=lambda: calls.append(None)),
    quiet=True,
  )
  assert result["exit_code"] == 0
  # What was collected is not collected again; 24 are the two evaluations.
  assert len(calls) <= (5 - kept) * 12 + 24
  assert_whole(tmp_path, whole)


def test_a_signal_while_compiling_or_fitting_saves_that_update(
  whole, tiny_config, dial, tmp_path, monkeypatch
):
  """Tracing is the first part of compiling."""
  build = trainer.build

  def signalling(config, action_dim):
    parts = build(config, action_dim)

    def loss(params, batch, key):
      os.kill(os.getpid(), signal.SIGTERM)
      return parts.model.loss(params, batch, key)

    return parts._replace(model=parts.model._replace(loss=loss))

  monkeypatch.setattr(trainer, "build", signalling)
  config = tiny_config("runtime.checkpoint_every=1")
  result = fit(config, tmp_path, env=dial, quiet=True)
  assert (result["exit_code"], result["updates"]) == (75, 1)
  monkeypatch.setattr(trainer, "build", build)
  fit(config, tmp_path, env=dial, quiet=True)
  assert_whole(tmp_path, whole)


def test_a_run_of_seed_episodes_alone_is_no_agent(tiny_config, dial, tmp_path):
  from jplanet.evaluate import evaluate

  fit(
    tiny_config(), tmp_path, env=lambda: dial(on_step=raise_after(15)),
    quiet=True,
  )  # fmt: skip
  with pytest.raises(UserError, match="no checkpoint yet"):
    evaluate(tmp_path, env=dial, quiet=True)


@pytest.mark.slow
def test_bad_gradients_leave_their_batch_to_be_looked_at(
  tiny_config, dial, tmp_path, monkeypatch
):
  def poison(config, action_dim):
    parts = build(config, action_dim)

    def loss(params, batch, key):
      value, metrics = parts.model.loss(params, batch, key)
      # From the fourth update on, as if the data had become impossible.
      bad = jnp.log(value * 0 - batch.reward.sum() * 0 - 1)
      return value + bad, metrics | {"loss": value + bad}

    return parts._replace(model=parts.model._replace(loss=loss))

  build = trainer.build
  monkeypatch.setattr(trainer, "build", poison)
  monkeypatch.setattr(rerun, "build", poison)
  config = tiny_config("train.updates_per_collect=30")
  with pytest.raises(NonFiniteError) as error:
    fit(config, tmp_path, env=dial, quiet=True)
  assert isinstance(error.value, UserError) and "\n" not in str(error.value)
  # Found out at the next wait, not after all thirty.
  (kept,) = (tmp_path / "debug").iterdir()
  assert 10 <= int(kept.name) + 1 <= 21
  with pytest.raises(FloatingPointError, match="nan"):
    rerun.rerun(tmp_path, env=dial)
  # With the cause mended the same inputs give a finite update.
  monkeypatch.setattr(rerun, "build", build)
  assert np.isfinite(rerun.rerun(tmp_path, env=dial)["loss"])
  with pytest.raises(UserError, match="no bad update"):
    rerun.rerun(whole_without_debug(tmp_path), env=dial)


def whole_without_debug(workdir):
  shutil.rmtree(workdir / "debug")
  return workdir


def test_lost_episodes_are_played_again(dial, losing):
  seeds = [3, 4]
  whole = collect(Lockstep([dial(), dial()]), seeds, random_policy(seeds, 1))
  envs = losing([dial(), dial()])
  again = collect(envs, seeds, random_policy(seeds, 1))
  assert envs.steps == 5 + 12
  for one, two in zip(whole, again, strict=True):
    for a, b in zip(one, two, strict=True):
      np.testing.assert_array_equal(a, b)


@pytest.mark.slow
def test_a_killed_worker_changes_no_bit(
  tiny_config, tmp_path, rows_without_times
):
  """Workers of the real environments, one of them killed in mid-episode."""
  config = tiny_config(
    "env.action_repeat=100", "env.renderer=ray", "env.num_envs=2",
    "env.workers=2", "train.max_episodes=6", "evaluate.every=0",
  )  # fmt: skip
  killed = []

  class Killing(Trainer):
    def start_round(self, *, random):
      super().start_round(random=random)
      if self.counters.episodes == 2 and not killed:
        process = self.collector._envs._workers[1][0]
        timer = threading.Timer(0.02, process.kill)
        killed.append(process.pid)
        timer.start()

  fit(config, tmp_path / "whole", quiet=True)
  with pytest.MonkeyPatch.context() as monkeypatch:
    monkeypatch.setattr(train, "Trainer", Killing)
    result = fit(config, tmp_path / "killed", quiet=True)
  assert result["worker_restarts"] == 1
  rows = [rows_without_times(tmp_path / w) for w in ("whole", "killed")]
  for row in (*rows[0], *rows[1]):
    del row["worker_restarts"]
  assert rows[0] == rows[1]
  assert returns_of(tmp_path / "whole") == returns_of(tmp_path / "killed")


def test_nothing_reads_pickles():
  """`multiprocessing` pickles between our own processes alone."""
  for package in ("jplanet", "jlejepa"):
    for path in (ROOT / package).rglob("*.py"):
      text = path.read_text()
      assert "allow_pickle=True" not in text, path
      for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import | ast.ImportFrom):
          names = [alias.name for alias in node.names]
          names.append(getattr(node, "module", None) or "")
          banned = {"pickle", "cloudpickle", "dill", "joblib", "shelve"}
          assert not banned & set(names), path


def test_left_overs_of_killed_writers_are_cleared(tiny_config, dial, tmp_path):
  for name in (".metrics.jsonl.ab12.tmp", ".config.json.xyz.tmp"):
    (tmp_path / name).write_text("half")
  (tmp_path / "mine.tmp").write_text("not ours")
  fit(tiny_config("runtime.max_minutes=1e-9"), tmp_path, env=dial, quiet=True)
  names = {path.name for path in tmp_path.iterdir()}
  assert "mine.tmp" in names
  assert not [n for n in names if n.startswith(".") and n.endswith(".tmp")]
  assert json.loads((tmp_path / "config.json").read_text())["seed"] == 0
