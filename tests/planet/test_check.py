"""Bad input: one clear line, exit code 2, and before anything compiles."""

import os
import pathlib
import re
import subprocess
import sys

import dm_env
import numpy as np
import pytest
from dm_env import specs

from jlejepa.runtime.errors import UserError
from jplanet import setup, train, trainer
from jplanet.check import check_config, split_tasks

ROOT = pathlib.Path(__file__).parents[2]

BAD = {
  "task=cartpole_swingupp": "unknown task .*cartpole_swingup",
  "task=": "config.task is empty",
  "modle.kind=rssm": "no key config.modle.kind; did you mean",
  "env.renderer=opengl": "env.renderer must be one of .*'opengl'",
  "env.camera=99": "camera",
  "env.num_envs=0": "env.num_envs must be an integer of at least 1",
  "env.size=24": "power of two",
  "model.kind=gru": "model.kind must be one of",
  "model.encoder=conv": "64x64 images, got size=32",
  "model.bits=9": "model.bits must be one of",
  "optimizer.learning_rate=nan": "learning_rate must be a finite number",
  "optimizer.learning_rate=0": "learning_rate must be a finite number above 0",
  "optimizer.ema=1.5": "optimizer.ema must be a number from 0 to 1",
  "planner.name=ceem": "planner.name must be one of",
  "planner.cem.elites=9": r"planner.cem: elites must lie .*9, candidates=8",
  "planner.cem.iterations=0": "planner.cem: iterations",
  "planner.horizon=0": "planner.horizon must be an integer of at least 1",
  "train.chunk=5000": r"chunk=5000 is longer than an episode.* 126 entries",
  "train.batch=2.5": "train.batch must be an integer",
  "train.updates_per_collect=0": "one of them must be 0, and the other",
  "train.updates_per_decision=0.5": "one of them must be 0, and the other",
  "train.updates_per_decision=nan": "updates_per_decision must be a finite",
  "train.max_episodes=2": "max_episodes=2 leaves no episode after the 2 seed",
  "train.noise=-0.1": "train.noise must be a finite number of at least 0",
  "runtime.max_minutes=inf": "max_minutes must be a finite number",
  "runtime.checkpoint_every=0": "checkpoint_every must be an integer of at",
  "loss.overshooting_distance=1": "overshooting_distance=1 must be 0 or lie",
  "loss.overshooting_scale=1": "belong together",
  "model.belief_only=true --config.model.kind=ssm": "needs .*kind='rssm'",
  "task=cheetah_run,walker_walk --config.env.num_envs=3": "multiple of the 2",
}


def command(override, workdir):
  flags = f"--config=planet.py:debug --config.{override}".split()
  return [*flags, f"--workdir={workdir}"]


@pytest.fixture
def refused(tmp_path, capsys):
  """Runs the command in this process; returns its one line."""

  def refused(override):
    workdir = tmp_path / "run"
    with pytest.raises(SystemExit) as exit:
      train.run(command(override, workdir))
    printed = capsys.readouterr()
    assert exit.value.code == 2 and printed.out == ""
    # No folder: so nothing was built, let alone compiled.
    assert not workdir.exists()
    (line,) = printed.err.splitlines()
    return line

  return refused


@pytest.mark.parametrize("override", BAD)
def test_bad_values_are_refused_in_one_line(override, refused):
  line = refused(override)
  assert line.startswith("error: ") and re.search(BAD[override], line), line


def test_no_opengl_is_said_before_anything_starts(refused, monkeypatch):
  monkeypatch.setenv("MUJOCO_GL", "disable")
  line = refused("env.renderer=gl")
  assert "needs OpenGL" in line and "renderer='ray'" in line


@pytest.mark.slow
def test_the_command_itself_exits_with_2_and_one_line(tmp_path):
  overrides = ["task=cartpole_swingupp", "train.chunk=5000"]
  running = [
    subprocess.Popen(
      [
        sys.executable,
        "-m",
        "jplanet.train",
        *command(override, tmp_path / "x"),
      ],
      cwd=ROOT,
      env={**os.environ, "JAX_PLATFORMS": "cpu"},
      stdout=subprocess.PIPE,
      stderr=subprocess.PIPE,
      text=True,
    )
    for override in overrides
  ]
  for process, override in zip(running, overrides):
    out, err = process.communicate(timeout=300)
    assert process.returncode == 2, err
    assert out == "" and len(err.splitlines()) == 1, (override, err)


class Buttons(dm_env.Environment):
  """An environment of four buttons."""

  def reset(self):
    raise AssertionError("never reached")

  step = reset

  def observation_spec(self):
    return specs.BoundedArray((8, 8, 3), np.uint8, 0, 255)

  def action_spec(self):
    return specs.DiscreteArray(4)


def test_discrete_actions_are_refused(tiny_config, tmp_path):
  with pytest.raises(UserError, match="continuous actions only") as error:
    train.fit(tiny_config(), tmp_path / "run", env=Buttons, quiet=True)
  assert "\n" not in str(error.value)
  assert not (tmp_path / "run").exists()


def test_a_short_environment_of_ones_own_is_found_out_before_compiling(
  tiny_config, dial, tmp_path, monkeypatch
):
  def never(*args, **kwargs):
    raise AssertionError("weights were made")

  monkeypatch.setattr(setup, "init_state", never)
  monkeypatch.setattr(trainer.Trainer, "_restore", lambda self: None)
  # 4 decisions and the reset are 5 entries; a chunk of 6 does not fit.
  with pytest.raises(UserError, match=r"chunk=6 .* has 5 entries"):
    train.fit(tiny_config(), tmp_path, env=lambda: dial(4), quiet=True)


def test_what_is_wrong_in_python_is_found_too(tiny_config):
  config = tiny_config()
  config.unlock()
  config.optimizer.learning_rate = float("nan")
  with pytest.raises(UserError, match="learning_rate must be a finite number"):
    check_config(config)
  config.optimizer.learning_rate = 1e-3
  check_config(config)
  config.train.bacth = 3
  with pytest.raises(UserError, match="bacth; did you mean"):
    check_config(config)


def test_tasks_are_split_at_commas():
  assert split_tasks(" a, b,,c ") == ["a", "b", "c"]
  assert split_tasks("") == []
