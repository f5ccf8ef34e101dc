"""What goes wrong without ending a run is counted in its rows, and said."""

import os
import signal

import pytest

from jlejepa.runtime.errors import UserError
from jlejepa.runtime.metrics import read_metrics
from jplanet import report, trainer
from jplanet.envs import Lockstep
from jplanet.setup_envs import EnvFactory
from jplanet.train import fit


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch):
  monkeypatch.setattr(report, "write_pictures", lambda *args: {})


class Diverging:
  """Wraps `Dial`: every episode is cut short by its simulation."""

  def __init__(self, env):
    self._env, self.physics_errors = env, 0

  def __getattr__(self, name):
    return getattr(self._env, name)

  def step(self, action):
    step = self._env.step(action)
    if step.last():
      self.physics_errors += 1
    return step


@pytest.mark.slow
def test_diverging_simulations_are_counted_over_resumes_and_end_a_run(
  tiny_config, dial, tmp_path, monkeypatch, rows_without_times
):
  env = lambda: Diverging(dial())
  config = tiny_config()
  fit(config, tmp_path / "a", env=env, quiet=True)
  rows = read_metrics(tmp_path / "a")
  assert [row["physics_errors"] for row in rows] == [1, 2, 3, 4, 5]
  # One evaluation before the fifth episode.
  assert [row["eval_physics_errors"] for row in rows] == [0, 0, 0, 1, 1]
  for at in (3, 4):
    stop = lambda row, at=at: (
      row["episodes"] == at and os.kill(os.getpid(), signal.SIGTERM)
    )
    fit(config, tmp_path / "b", env=env, quiet=True, callback=stop)
  fit(config, tmp_path / "b", env=env, quiet=True)
  assert rows_without_times(tmp_path / "a") == rows_without_times(
    tmp_path / "b"
  )
  monkeypatch.setattr(trainer, "MAX_DIVERGED", 4)
  with pytest.raises(UserError, match="last 4 episodes diverged"):
    fit(config, tmp_path / "c", env=env, quiet=True)


def stop_at(episodes):
  return lambda row: (
    row["episodes"] == episodes and os.kill(os.getpid(), signal.SIGTERM)
  )


def test_a_cut_evaluation_is_said_and_counted(
  tiny_config, dial, tmp_path, capsys
):
  result = fit(tiny_config(), tmp_path, env=lambda: Diverging(dial()))
  said = capsys.readouterr().err
  assert "evaluating: 1 of 1 episodes were cut short by a diverging" in said
  assert "collecting: 1 of 1 episodes were cut short by a diverging" in said
  # The evaluation at the end is no row any more.
  assert result["eval_physics_errors"] == 2


def test_workers_replaced_in_an_evaluation_are_counted(
  tiny_config, dial, tmp_path, monkeypatch, capsys
):
  class Restarting(Lockstep):
    """As a pool that replaces a worker in every round."""

    def reset(self, seeds):
      self.restarts += 1
      return super().reset(seeds)

  group = EnvFactory.group

  def with_restarts(self, count, *, workers=0):
    return Restarting(group(self, count)._envs)

  monkeypatch.setattr(EnvFactory, "group", with_restarts)
  fit(tiny_config(), tmp_path, env=dial)
  rows = read_metrics(tmp_path)
  assert [row["worker_restarts"] for row in rows] == [1, 2, 3, 5, 6]
  said = capsys.readouterr().err
  assert "evaluating: 1 worker processes were replaced" in said
  assert "collecting: 1 worker processes were replaced" in said


@pytest.mark.slow
def test_damaged_episodes_are_counted_in_every_row(
  tiny_config, dial, tmp_path, capsys
):
  config = tiny_config("train.seed_episodes=12", "train.max_episodes=15")
  fit(config, tmp_path, env=dial, callback=stop_at(13))
  # A whole file, but of another episode.
  paths = [tmp_path / "episodes" / f"00000{i}.npz" for i in (3, 4)]
  paths[0].write_bytes(paths[1].read_bytes())
  fit(config, tmp_path, env=dial, callback=stop_at(14))
  said = "left out a damaged episode: 000003.npz: not the episode that was"
  assert said in capsys.readouterr().err
  # Set aside by the process before this one, and still lacking.
  result = fit(config, tmp_path, env=dial)
  assert result["damaged_episodes"] == 1
  counts = [row["damaged_episodes"] for row in read_metrics(tmp_path)]
  assert counts == [0] * 13 + [1, 1]
