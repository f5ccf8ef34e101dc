"""Whole runs on the control suite and on environments of one's own."""

import json
import pathlib
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from jlejepa.runtime.metrics import read_metrics
from jplanet import report
from jplanet.envs import from_gymnasium
from jplanet.jax_envs import pendulum
from jplanet.jax_envs.dm_adapter import DmEnv
from jplanet.scores import read_scores
from jplanet.train import fit

ROOT = pathlib.Path(__file__).parents[2]
SUITE = ("env.action_repeat=100", "env.renderer=ray")


def make_pendulum():
  return DmEnv(pendulum(size=8, episode_length=12))


def make_gymnasium():
  gymnasium = pytest.importorskip("gymnasium")

  class Box(gymnasium.Env):
    observation_space = gymnasium.spaces.Box(0, 255, (8, 8, 3), np.uint8)
    action_space = gymnasium.spaces.Box(-2.0, 2.0, (1,), np.float32)

    def reset(self, *, seed=None, options=None):
      super().reset(seed=seed)
      self.t = 0
      return self.np_random.integers(256, size=(8, 8, 3), dtype=np.uint8), {}

    def step(self, action):
      self.t += 1
      image = np.full((8, 8, 3), self.t, np.uint8)
      return image, float(action[0]), False, self.t == 12, {}

  return from_gymnasium(Box(), size=8)


@pytest.mark.slow
@pytest.mark.parametrize("maker", [make_pendulum, make_gymnasium])
def test_an_environment_of_ones_own_is_trained_on(maker, tiny_config, tmp_path):
  config = tiny_config("task=mine", "train.max_episodes=3")
  result = fit(config, tmp_path, env=maker, quiet=True)
  assert result["decisions"] == result["env_steps"] == 36
  scores = read_scores(tmp_path)
  names = {make_pendulum: "jax", make_gymnasium: "gymnasium"}
  assert (scores["task"], scores["renderer"]) == ("mine", names[maker])


@pytest.mark.slow
def test_a_real_run_fills_its_folder(tiny_config, tmp_path, capfd):
  pytest.importorskip("imageio_ffmpeg")
  pytest.importorskip("matplotlib")
  config = tiny_config(
    *SUITE,
    "train.max_episodes=4",
    "env.num_envs=2",
    "evaluate.episodes=2",
    "runtime.tensorboard=true",
  )
  result = fit(config, tmp_path)
  assert {
    "config.json", "environment.json", "metrics.jsonl", "scores.json",
    "checkpoints", "episodes", "videos", "plots", "tensorboard",
  } <= {path.name for path in tmp_path.iterdir()}  # fmt: skip
  assert len(result["pictures"]) == 4
  for path in map(pathlib.Path, result["pictures"].values()):
    assert path.stat().st_size > 100
  assert json.loads((tmp_path / "config.json").read_text())["seed"] == 0
  environment = json.loads((tmp_path / "environment.json").read_text())
  assert environment["renderer"] == "ray"
  scores = read_scores(tmp_path)
  assert scores["task"] == "cartpole_swingup" and scores["renderer"] == "ray"
  # 4 episodes of 1000 control steps, in decisions of 100.
  assert (result["env_steps"], result["decisions"]) == (4000, 40)
  assert 0 <= result["eval_return"] <= 1000
  assert "env steps" in capfd.readouterr().err
  assert "noise-free return" in report.summary(result)


@pytest.mark.slow
@pytest.mark.parametrize("decisions", [1, 4])
def test_short_episodes_have_their_pictures(
  decisions, tiny_config, dial, tmp_path
):
  """Fewer frames than the usual context of five before the imagined ones."""
  config = tiny_config(
    "train.chunk=2", "train.max_episodes=3", "evaluate.every=0"
  )
  result = fit(config, tmp_path, env=lambda: dial(decisions), quiet=True)
  assert "imagined against true" in result["pictures"]
  assert all(
    pathlib.Path(path).is_file() for path in result["pictures"].values()
  )


@pytest.mark.slow
def test_several_tasks_have_their_own_scores(tiny_config, tmp_path):
  config = tiny_config(
    *SUITE, "task=cartpole_swingup,cheetah_run", "env.num_envs=2"
  )
  result = fit(config, tmp_path, quiet=True)
  # 5 episodes of each task; a phase collects one of each.
  assert (result["episodes"], result["env_steps"]) == (10, 10_000)
  for task in ("cartpole_swingup", "cheetah_run"):
    scores = read_scores(tmp_path / f"scores_{task}.json")
    assert scores["task"] == task and scores["xs_env_steps"][-1] == 5000
    assert scores["final"]["episodes"] == 1


@pytest.mark.slow
def test_sigterm_saves_and_the_same_command_finishes(tmp_path):
  overrides = (
    *SUITE, "env.size=8", "env.supersample=1", "train.max_episodes=12",
    "evaluate.every=0", "evaluate.episodes=2",
  )  # fmt: skip
  command = [
    sys.executable, "-m", "jplanet.train", "--config=planet.py:debug",
    f"--workdir={tmp_path}", *(f"--config.{text}" for text in overrides),
  ]  # fmt: skip
  process = subprocess.Popen(
    command, cwd=ROOT, stderr=subprocess.PIPE, text=True
  )
  deadline = time.monotonic() + 300
  while not list(tmp_path.glob("checkpoints/*/manifest.json")):
    assert process.poll() is None and time.monotonic() < deadline
    time.sleep(0.02)
  process.send_signal(signal.SIGTERM)
  _, err = process.communicate(timeout=300)
  assert process.returncode == 75, err
  assert "the same command goes on" in err
  done = read_metrics(tmp_path)[-1]["episodes"]
  assert done < 12
  finished = subprocess.run(
    command, cwd=ROOT, capture_output=True, text=True, timeout=300
  )
  assert finished.returncode == 0, finished.stderr
  assert "going on from" in finished.stderr
  assert "noise-free return" in finished.stdout
  episodes = [row["episodes"] for row in read_metrics(tmp_path)]
  assert episodes == list(range(2, 13, 2))
