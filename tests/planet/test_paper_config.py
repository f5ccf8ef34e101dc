"""The paper's configuration, at full size, on each of the eight tasks."""

import dm_env
import numpy as np
import pytest

import jplanet
from jlejepa.runtime.config import load_config
from jplanet import report, train
from jplanet.envs import TASKS, make_env, renderers
from jplanet.trainer import Trainer

DECISIONS = 2


class Short(dm_env.Environment):
  """Ends an episode after a few decisions; all else is the task's."""

  def __init__(self, env):
    self._env = env
    self.action_repeat, self.renderer = env.action_repeat, env.renderer

  def seed(self, seed):
    self._env.seed(seed)

  def reset(self):
    self._decisions = 0
    return self._env.reset()

  def step(self, action):
    self._decisions += 1
    step = self._env.step(action)
    if self._decisions == DECISIONS:
      step = step._replace(step_type=dm_env.StepType.LAST)
    return step

  def observation_spec(self):
    return self._env.observation_spec()

  def action_spec(self):
    return self._env.action_spec()

  def close(self):
    self._env.close()


def best_renderer() -> str:
  """GL where there is any, even a slow one: the paper's own pixels."""
  try:
    renderers.choose("gl")
  except RuntimeError:
    return "ray"
  return "gl"


@pytest.mark.slow
@pytest.mark.parametrize("task", list(TASKS)[:8])
def test_paper_configuration_fits_and_plans(task, tmp_path, monkeypatch):
  config = load_config(f"planet.py:{task}")
  # Sizes of networks, planner and pixels stay; only the amounts shrink.
  config.train.update(
    seed_episodes=1, max_episodes=2, updates_per_collect=3, batch=2, chunk=3
  )
  config.evaluate.update(every=0, episodes=1)
  config.runtime.tensorboard = False
  renderer = best_renderer()
  rows, trainers = [], []

  class Kept(Trainer):
    def __init__(self, *args):
      trainers.append(self)
      super().__init__(*args)

  monkeypatch.setattr(train, "Trainer", Kept)
  if task != "cartpole_swingup":  # The pictures are no different.
    monkeypatch.setattr(report, "write_pictures", lambda *args: {})
  result = jplanet.fit(
    config,
    tmp_path / "run",
    env=lambda: Short(make_env(task, renderer=renderer)),
    quiet=True,
    callback=rows.append,
  )
  assert [row["episodes"] for row in rows] == [1, 2]
  assert result["updates"] == 3
  assert result["env_steps"] == 2 * DECISIONS * TASKS[task].action_repeat
  losses = [row[k] for row in rows[1:] for k in ("loss", "kl", "grad_norm")]
  assert np.isfinite(losses).all()
  # The dequantised image costs 11,291.9 nats at a perfect mean.
  assert rows[1]["loss_image"] > 11_291
  assert np.isfinite(result["eval_return"])
  (trainer,) = trainers
  assert trainer.step._cache_size() == 1
  # Collection and evaluation alike have one environment here.
  assert trainer.parts.batched_act._cache_size() == 1
