"""The evaluation of a run, on one that trained for seconds."""

import errno
import json
import pathlib
import shutil

import numpy as np
import pytest

from jlejepa.runtime.errors import UserError
from jlejepa.runtime.lock import FolderLock
from jplanet import evaluate as module
from jplanet import report
from jplanet.envs import Lockstep
from jplanet.evaluate import evaluate, run
from jplanet.scores import read_scores
from jplanet.setup import REPORT, episode_seeds
from jplanet.setup_envs import keep_renderer
from jplanet.train import fit

TASK = "cartpole_swingup"


@pytest.fixture(scope="module")
def trained(tiny_config, tmp_path_factory):
  """Trains on episodes of ten decisions."""
  path = tmp_path_factory.mktemp("trained")
  config = tiny_config(
    "env.action_repeat=100", "env.renderer=auto", "train.max_episodes=4",
    "evaluate.every=1", "env.num_envs=2", "evaluate.episodes=2",
  )  # fmt: skip
  with pytest.MonkeyPatch.context() as monkeypatch:
    monkeypatch.setattr(report, "write_pictures", lambda *args: {})
    fit(config, path, quiet=True)
  return path


@pytest.fixture
def copied(trained, tmp_path):
  """A copy of the run that a test may harm."""
  return shutil.copytree(trained, tmp_path / "copy")


@pytest.fixture
def calls(monkeypatch):
  """The seeds of every group, and the compiled call and noise it used."""
  calls, policies = [], []
  real_collect, real_policy = module.collect, module.planned_policy

  def collect(envs, seeds, policy):
    calls.append(list(seeds))
    return real_collect(envs, seeds, policy)

  def planned_policy(act, agent, params, key, seeds, noise):
    policies.append((act, noise))
    return real_policy(act, agent, params, key, seeds, noise)

  monkeypatch.setattr(module, "collect", collect)
  monkeypatch.setattr(module, "planned_policy", planned_policy)
  return calls, policies


@pytest.mark.slow
def test_groups_share_one_program_and_no_seed(trained, calls, monkeypatch):
  monkeypatch.setattr(module, "AT_ONCE", 2)
  result = evaluate(trained, episodes=3, video=False, quiet=True)
  seeds, policies = calls
  # Two groups of two; the fourth episode fills the last group up.
  assert [len(group) for group in seeds] == [2, 2]
  assert [*seeds[0], *seeds[1]] == episode_seeds(0, REPORT, 0, 4)
  assert [noise for _, noise in policies] == [0.0, 0.0]
  assert policies[0][0]._cache_size() == 1
  score = result["scores"][TASK]
  assert len(set(score["returns"])) == 3 == score["episodes"]
  np.testing.assert_allclose(score["mean"], np.mean(score["returns"]))
  assert score["iqm_low"] <= score["iqm"] <= score["iqm_high"]
  assert (result["episodes"], result["updates"]) == (4, 3)


@pytest.mark.slow
def test_the_same_call_gives_the_same_bits(trained):
  call = lambda **options: evaluate(
    trained, episodes=2, video=False, quiet=True, **options
  )["scores"][TASK]["returns"]
  first = call()
  assert call() == first
  assert call(seed=0) == first
  assert set(call(seed=1)).isdisjoint(first)


@pytest.mark.slow
def test_the_scores_keep_the_curve_and_get_a_new_final(copied):
  before = read_scores(copied)
  returns = evaluate(copied, episodes=2, video=False, quiet=True)
  after = read_scores(copied)
  for name in ("xs_env_steps", "xs_episodes", "ys", "returns", "seed", "task"):
    assert after[name] == before[name]
  assert after["final"]["mean"] == returns["scores"][TASK]["mean"]
  assert after["final"] != before["final"]
  # Without a score file, or with a damaged one, there is one evaluation.
  (copied / "scores.json").write_text("{")
  evaluate(copied, episodes=2, video=False, quiet=True)
  alone = read_scores(copied)
  assert alone["xs_env_steps"] == [4000] and alone["xs_episodes"] == [4]
  assert alone["final"] == after["final"]


@pytest.mark.slow
def test_the_command_prints_scores_and_paths(copied, capsys):
  pytest.importorskip("imageio_ffmpeg")
  pytest.importorskip("matplotlib")
  run([f"--workdir={copied}", "--episodes=2"])
  lines = capsys.readouterr().out.splitlines()
  assert lines[0] == ("after 4 episodes, 4000 environment steps, 3 updates")
  assert lines[1].startswith(f"{TASK}: mean ")
  for word in ("median", "interquartile mean", "95% interval", "2 episodes"):
    assert word in lines[1]
  paths = [pathlib.Path(line.rpartition(": ")[2]) for line in lines[2:]]
  assert copied / "videos" / "episode.mp4" in paths and len(paths) == 4
  assert all(path.stat().st_size > 100 for path in paths)


def one_line(argv, capsys):
  with pytest.raises(SystemExit) as exit:
    run(argv)
  assert exit.value.code == 2
  printed = capsys.readouterr()
  (line,) = printed.err.splitlines()
  assert printed.out == ""
  return line


def test_what_cannot_be_evaluated_is_said_in_one_line(copied, tmp_path, capsys):
  nowhere = tmp_path / "nowhere"
  line = one_line([f"--workdir={nowhere}"], capsys)
  assert "holds no run" in line and not nowhere.exists()
  line = one_line([f"--workdir={copied}", "--episodes=0"], capsys)
  assert "episodes must be an integer of at least 1, got 0" in line
  assert "--workdir=... is missing" in one_line([], capsys)
  assert "--episodes" in one_line(["--episode=3"], capsys)
  line = one_line([f"--workdir={copied}", "--seed=one"], capsys)
  assert "seed must be an integer" in line
  shutil.rmtree(copied / "checkpoints")
  line = one_line([f"--workdir={copied}"], capsys)
  assert "holds no checkpoint yet" in line


def test_a_cut_episode_is_said(copied, monkeypatch, capsys):
  monkeypatch.setattr(Lockstep, "physics_errors", 1)
  evaluate(copied, episodes=2, video=False, quiet=True)
  assert "1 of 2 episodes were cut short" in capsys.readouterr().err


def test_a_full_disk_is_said_in_one_line(copied, capsys, monkeypatch):
  def full(*args, **kwargs):
    raise OSError(errno.ENOSPC, "No space left on device")

  before = (copied / "scores.json").read_bytes()
  monkeypatch.setattr("jplanet.scores.atomic_write_json", full)
  with pytest.raises(SystemExit) as exit:
    run([f"--workdir={copied}", "--episodes=2"])
  assert exit.value.code == 2
  line = capsys.readouterr().err.splitlines()[-1]
  assert str(copied) in line and "No space left on device" in line
  assert (copied / "scores.json").read_bytes() == before


def test_a_folder_in_use_is_left_alone(copied):
  lock = FolderLock(copied)
  with pytest.raises(UserError, match="in use by process"):
    evaluate(copied, quiet=True)
  lock.release()


def test_auto_means_what_drew_the_pixels_of_training(
  tiny_config, copied, tmp_path
):
  config = tiny_config("env.renderer=auto")
  assert keep_renderer(config, tmp_path / "new").env.renderer == "auto"
  assert keep_renderer(config, copied).env.renderer == "ray"
  path = copied / "environment.json"
  facts = json.loads(path.read_text())
  path.write_text(json.dumps(facts | {"renderer": "gl:egl"}))
  assert keep_renderer(config, copied).env.renderer == "gl"
  explicit = tiny_config("env.renderer=ray")
  assert keep_renderer(explicit, copied).env.renderer == "ray"
  assert config.env.renderer == "auto"
