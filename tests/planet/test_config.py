"""The configurations that the repository offers."""

import importlib.util
import pathlib

import numpy as np
import pytest

from jlejepa.runtime.config import load_config
from jplanet.check import check_config, split_tasks
from jplanet.envs.tasks import TASKS

ROOT = pathlib.Path(__file__).parents[2]


def load_variants():
  spec = importlib.util.spec_from_file_location(
    "planet_configs", ROOT / "configs" / "planet.py"
  )
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return sorted(module.VARIANTS)


VARIANTS = load_variants()


@pytest.mark.parametrize("base", ["", "cpu,", "debug,"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_keeps_the_rules(variant, base):
  check_config(load_config(f"planet.py:{base}{variant}"))


def test_no_argument_is_the_cpu_default():
  assert load_config("planet.py") == load_config("planet.py:cpu")


@pytest.mark.parametrize(
  "arg, task",
  [
    ("cheetah_run", "cheetah_run"),
    ("cpu,task=walker_walk", "walker_walk"),
    ("debug, reacher_easy", "reacher_easy"),
  ],
)
def test_a_word_names_the_task(arg, task):
  assert load_config(f"planet.py:{arg}").task == task


def test_all_tasks_are_the_six_of_the_paper():
  config = load_config("planet.py:all_tasks")
  tasks = split_tasks(config.task)
  assert len(tasks) == 6 == config.env.num_envs
  # One episode of each task after every 600 updates.
  assert config.train.updates_per_collect == 600
  # The replay holds a thousand episodes of each, as the paper's does.
  entries = [1000 // TASKS[task].action_repeat + 1 for task in tasks]
  assert 64 * 64 * 3 * 1000 * sum(entries) < config.train.replay_bytes


def test_the_paper_takes_its_constants_from_appendix_a():
  config = load_config("planet.py:cheetah_run")
  train, model, cem = config.train, config.model, config.planner.cem
  assert (train.seed_episodes, train.updates_per_collect) == (5, 100)
  assert (train.batch, train.chunk, train.noise) == (50, 50, 0.3)
  assert (train.max_episodes, config.env.num_envs) == (1000, 1)
  assert (config.env.size, model.bits, config.env.action_repeat) == (64, 5, 0)
  assert (model.state, model.belief, model.hidden) == (30, 200, 200)
  assert config.planner.name == "cem" and config.planner.horizon == 12
  assert (cem.candidates, cem.elites, cem.iterations) == (1000, 100, 10)
  assert not config.planner.warm_start and config.planner.sample_prior
  optimizer = config.optimizer
  np.testing.assert_array_equal(
    [optimizer.learning_rate, optimizer.eps, optimizer.clip_norm],
    [1e-3, 1e-4, 1000.0],
  )
  assert config.loss.free_nats == 3.0 and optimizer.ema == 0.0


def test_the_cpu_default_fits_its_model_long_enough():
  # 25 updates per episode were too few for the reacher (results/README.md),
  # whose episodes have 250 decisions.
  config = load_config("planet.py:cpu")
  assert config.train.updates_per_decision * 250 == 50
  icem = config.planner.icem
  assert config.planner.name == "icem" and config.planner.warm_start
  # As many steps of the model as 100 plans of 12 decisions.
  assert icem.candidates * config.planner.horizon == 1200
  assert (icem.init_std, icem.noise_beta) == (1.0, 2.5)


def test_ablations_change_one_thing():
  paper = load_config("planet.py:").to_dict()

  def change(name):
    config = load_config(f"planet.py:{name}").to_dict()
    return {
      f"{section}.{key}": config[section][key]
      for section, keys in paper.items()
      if isinstance(keys, dict)
      for key in keys
      if config[section][key] != keys[key]
    }

  assert change("random_collection") == {"train.collect": "random"}
  assert change("random_shooting") == {"planner.name": "random_shooting"}
  assert change("stochastic") == {"model.kind": "ssm"}
  assert change("drnn") == {"model.kind": "drnn"}
  assert change("overshooting") == {
    "loss.overshooting_scale": 1.0,
    "loss.overshooting_distance": 50,
    "loss.overshooting_free_nats": 3.0,
  }
