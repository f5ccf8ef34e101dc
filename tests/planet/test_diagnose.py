"""State diagnostics of a run: recorded states, and the command."""

import json
import subprocess
import sys
from types import SimpleNamespace

import dm_env
import jax
import numpy as np
import pytest
from dm_env import specs

import jplanet
from jlejepa.runtime.checkpoint import Checkpoints
from jlejepa.runtime.errors import UserError
from jlejepa.runtime.run_folder import RunFolder
from jplanet import diagnostics, diagnostics_data, diagnostics_report
from jplanet.collect import random_policy
from jplanet.counters import Counters
from jplanet.diagnose import diagnose, run
from jplanet.diagnostics_data import pad_episodes, record_episodes
from jplanet.envs import Lockstep
from jplanet.envs.padding import make_padded_env
from jplanet.replay import Episode
from jplanet.setup import build

KEY = jax.random.key(0)


class Counting(dm_env.Environment):
  """Shows a number that counts from the seed, and knows it as its state."""

  def __init__(self, length, name):
    self.length, self.name = length, name

  def seed(self, seed):
    self.start = seed % 100

  def reset(self):
    self.t = 0
    return dm_env.restart(self.see())

  def step(self, action):
    self.t += 1
    make = dm_env.transition if self.t < self.length else dm_env.termination
    return make(reward=0.0, observation=self.see())

  def see(self):
    return np.full((4, 4, 3), self.start + self.t, np.uint8)

  def state(self):
    return {self.name: np.array(self.start + self.t)}

  def action_spec(self):
    return specs.BoundedArray((1,), np.float32, -1, 1)

  def observation_spec(self):
    return specs.BoundedArray((4, 4, 3), np.uint8, 0, 255)


def test_states_belong_to_their_images_tasks_and_episodes(monkeypatch):
  monkeypatch.setattr(
    diagnostics_data,
    "planned_policy",
    lambda act, agent, params, key, seeds, noise: random_policy(seeds, 1),
  )
  monkeypatch.setattr(diagnostics_data, "AT_ONCE", 4)
  kinds = {"a": 3, "b": 5}

  def group(count):
    return Lockstep(
      [
        Counting(*[(n, k) for k, n in kinds.items()][i % 2])
        for i in range(count)
      ]
    )

  recorded = record_episodes(
    SimpleNamespace(tasks=list(kinds), group=group),
    SimpleNamespace(batched_act=None, agent=None),
    None,
    KEY,
    seed=0,
    episodes=3,
    noise=0.0,
  )
  assert list(recorded) == ["a", "b"]
  for name, length in kinds.items():
    data = recorded[name]
    assert data.valid.all() and data.valid.shape == (3, length + 1)
    assert list(data.states) == [name]
    np.testing.assert_array_equal(
      data.states[name][..., 0], data.image[..., 0, 0, 0]
    )
    # Other seeds, other episodes.
    assert len(set(data.image[:, 0, 0, 0, 0])) == 3


def test_padding_and_diverged_states_are_not_valid():
  def episode(length):
    return Episode(
      np.ones((length, 2, 2, 3), np.uint8),
      np.ones((length, 1), np.float32),
      np.ones(length, np.float32),
    )

  states = {"x": np.ones((4, 2))}
  states["x"][3, 1] = np.inf
  data = pad_episodes(
    [(episode(2), {"x": np.ones((2, 2))}), (episode(4), states)]
  )
  assert data.image.shape == (2, 4, 2, 2, 3) and data.image.dtype == np.uint8
  np.testing.assert_array_equal(
    data.valid, [[True, True, False, False], [True, True, True, False]]
  )


def test_lockstep_gives_the_states_of_the_suite():
  envs = Lockstep(
    [
      make_padded_env("cartpole_swingup", 3, size=16, renderer="ray")
      for _ in range(2)
    ]
  )
  envs.reset([1, 2])
  one, two = envs.states()
  # The cart's place and the pole's cosine and sine; their two speeds.
  assert one["position"].shape == (3,) and one["velocity"].shape == (2,)
  assert np.hypot(*one["position"][1:]) == pytest.approx(1)
  assert (one["position"] != two["position"]).any()
  envs.close()


class Blind(Counting):
  """An environment that says nothing about its state."""

  state = None

  def __init__(self):
    super().__init__(50, "")


def test_lockstep_without_states_says_so():
  with pytest.raises(ValueError, match=r"has no state\(\)"):
    Lockstep([Blind()]).states()


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
  """A debug run of 40 decisions an episode, before its first update.

  Saved as the training loop does, which spares half a minute of compiling.
  """
  config = jplanet.load_config(
    "planet.py:debug", ["env.size=16", "env.action_repeat=25"]
  )
  path = tmp_path_factory.mktemp("diagnostics") / "run"
  parts = build(config, 1)
  state = parts.init(KEY)
  counters = Counters(updates=2)._asdict()
  with RunFolder.open(str(path), config) as folder:
    Checkpoints(folder.checkpoints).save(2, state, {"counters": counters})
  return path


@pytest.mark.slow
def test_command_reports_every_component_of_a_run(workdir, capsys):
  run([f"--workdir={workdir}", "--episodes=4"])
  printed = capsys.readouterr().out
  saved = json.loads((workdir / "diagnostics.json").read_text())
  assert saved["episodes"] == 4 and saved["updates"] == 2
  table = saved["tasks"]["cartpole_swingup"]
  # Two scored episodes of 41 entries, from entry 4 + 30 on.
  assert table["entries"] == 2 * (41 - 34)
  components = [f"position[{i}]" for i in range(3)]
  components += [f"velocity[{i}]" for i in range(2)]
  for model in ("trained", "untrained"):
    assert list(table[model]) == components
    for scores in table[model].values():
      assert len(scores) == 4 and all(x <= 1 for x in scores.values())
  assert table["trained"] != table["untrained"]
  for word in [*components, "filtered", "mean", "untrained"]:
    assert word in printed
  assert (workdir / "plots" / "diagnostics.png").stat().st_size > 10_000


def test_environment_without_a_state_is_one_clear_line(workdir):
  with pytest.raises(UserError, match=r"has no state\(\)"):
    diagnose(str(workdir), episodes=2, env=Blind, quiet=True)


def test_bad_arguments_are_named_before_any_work(tmp_path):
  with pytest.raises(UserError, match="episodes must be 2 or more"):
    diagnose(str(tmp_path), episodes=1)
  with pytest.raises(UserError, match="noise"):
    diagnose(str(tmp_path), noise=-1.0)
  command = [sys.executable, "-m", diagnostics.__name__]
  done = subprocess.run(
    [*command, f"--workdir={tmp_path}"], capture_output=True, text=True
  )
  assert done.returncode == 2 and "holds no run" in done.stderr
  assert len(done.stderr.strip().splitlines()) == 1


def test_table_marks_constants_and_disasters():
  scores = {"x[0]": {"filtered": 0.5, "open_loop_10": -50.0}}
  still = {"x[1]": {"filtered": None, "open_loop_10": None}}
  table = {"entries": 7, "trained": scores | still, "untrained": scores | still}
  lines = diagnostics_report.describe(
    {"episodes": 5, "tasks": {"t": table}, "pictures": {}}
  ).splitlines()
  assert lines[0].startswith("t: R^2 on 7 entries of 3 episodes")
  assert lines[3].split() == ["x[0]", *["0.50", "<", "-9.99"] * 2]
  assert lines[4].split() == ["x[1]", *["-"] * 4]
  assert lines[5].split() == ["mean", *["0.50", "<", "-9.99"] * 2]
