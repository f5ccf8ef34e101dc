"""Signals to a run before its loop, and to one whose environment hangs."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import jlejepa.trainer
from jlejepa.data import from_arrays
from jlejepa.runtime.config import load_config
from jlejepa.runtime.metrics import read_metrics
from jplanet import report
from jplanet.replay import Replay
from jplanet.setup_envs import EnvFactory
from jplanet.train import fit

ROOT = Path(__file__).parents[2]

# A run whose environment hangs at a step of them all, as `jplanet.train` runs.
RUN = """
import sys, time
from jlejepa.runtime.config import load_config
from jlejepa.runtime.stop import quit_on_interrupt
from jplanet import report
from jplanet.train import fit
from tests.conftest import Dial

workdir, at, *overrides = sys.argv[1:]
steps = []

def on_step():
  steps.append(None)
  if len(steps) == int(at):
    print("hanging", flush=True)
    time.sleep(300)

report.write_pictures = lambda *args: {}
with quit_on_interrupt():
  result = fit(
    load_config("planet.py:debug", overrides), workdir,
    env=lambda: Dial(on_step=on_step),
  )
  sys.exit(result["exit_code"])
"""
OVERRIDES = (
  "env.size=8", "env.num_envs=1", "env.supersample=1", "model.depth=4",
  "planner.horizon=3", "train.batch=2", "train.chunk=6",
  "train.seed_episodes=2", "train.max_episodes=3",
  "train.updates_per_collect=3", "evaluate.every=0", "evaluate.episodes=1",
  "runtime.tensorboard=false",
)  # fmt: skip


# Of 12 steps an episode, the first is in the seed episodes, and the last in the
# evaluation at the end.
@pytest.mark.slow
@pytest.mark.parametrize("at", [3, 40])
def test_a_second_interrupt_ends_a_run_that_hangs(at, tmp_path):
  process = subprocess.Popen(
    [sys.executable, "-c", RUN, str(tmp_path), str(at), *OVERRIDES],
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
    cwd=ROOT,
  )
  with process:
    line = process.stdout.readline()
    assert line == "hanging\n", process.stderr.read()
    os.kill(process.pid, signal.SIGINT)
    time.sleep(1)
    assert process.poll() is None
    start = time.monotonic()
    os.kill(process.pid, signal.SIGINT)
    assert process.wait(60) == 130
    assert time.monotonic() - start < 10
    assert "SIGINT: saving, then stopping" in process.stderr.read()
  # What was written is whole.
  assert len(read_metrics(tmp_path)) == (0 if at == 3 else 3)


def terminate():
  os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.slow
@pytest.mark.parametrize(
  "owner, name", [(EnvFactory, "group"), (Replay, "load")]
)
def test_a_signal_before_the_loop_is_obeyed_and_loses_nothing(
  owner, name, tiny_config, dial, tmp_path, monkeypatch
):
  """While environments start, and while episodes are read."""
  monkeypatch.setattr(report, "write_pictures", lambda *args: {})
  config = tiny_config()
  stop = lambda row: row["episodes"] == 3 and terminate()
  assert fit(config, tmp_path, env=dial, quiet=True, callback=stop)
  before = read_metrics(tmp_path)
  real = getattr(owner, name)

  def signalling(self, *args, **kwargs):
    terminate()
    return real(self, *args, **kwargs)

  with monkeypatch.context() as during:
    during.setattr(owner, name, signalling)
    result = fit(config, tmp_path, env=dial, quiet=True)
  assert (result["exit_code"], result["episodes"]) == (75, len(before))
  assert read_metrics(tmp_path) == before
  result = fit(config, tmp_path, env=dial, quiet=True)
  assert (result["exit_code"], result["episodes"]) == (0, 5)


@pytest.mark.slow
def test_a_signal_before_the_loop_of_lejepa(tmp_path, monkeypatch):
  config = load_config(
    "lejepa.py:debug", ["projector.layers=1", "train.epochs=1"]
  )
  images = np.random.default_rng(0).uniform(size=(64, 8, 8, 1))
  images = images.astype(np.float32)

  def signalling(*args, **kwargs):
    terminate()
    return real(*args, **kwargs)

  real = jlejepa.trainer.first_state
  monkeypatch.setattr(jlejepa.trainer, "first_state", signalling)
  result = jlejepa.fit(
    config, str(tmp_path), dataset=from_arrays(images), quiet=True
  )
  assert (result["exit_code"], result["step"]) == (75, 0)
