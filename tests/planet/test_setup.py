"""Seeds, environments and counters of a run."""

import itertools
from functools import partial

import numpy as np
import pytest

from jlejepa.runtime.errors import UserError
from jplanet.counters import Counters
from jplanet.envs import WorkerPool, make_env
from jplanet.setup import EVALUATE, REPORT, TRAIN, episode_seeds
from jplanet.setup_envs import EnvFactory, require_chunk


def test_no_two_episodes_share_a_seed_whatever_they_are_for():
  groups = [
    episode_seeds(seed, use, 0, 300)
    for seed, use in itertools.product((0, 1), (TRAIN, EVALUATE, REPORT))
  ]
  assert len({s for group in groups for s in group}) == 6 * 300


def test_seeds_count_on_from_where_they_stopped():
  assert episode_seeds(3, TRAIN, 0, 6)[4:] == episode_seeds(3, TRAIN, 4, 2)


def test_a_group_takes_turns_among_tasks_of_different_actions(tiny_config):
  config = tiny_config(
    "task=cartpole_swingup,cheetah_run", "env.action_repeat=100",
    "env.num_envs=2",
  )  # fmt: skip
  factory = EnvFactory(config)
  # One actuator and six: the agent has six.
  assert factory.action_dim == 6 and factory.action_repeats == [100, 100]
  assert factory.renderer == "ray"
  envs = factory.group(4)
  assert (envs.num_envs, envs.action_dim) == (4, 6)
  images = envs.reset([0, 0, 1, 1])
  assert images.shape == (4, 8, 8, 3)
  assert (images[0] != images[1]).any()
  _, rewards, done = envs.step(np.zeros((4, 6), np.float32))
  assert np.isfinite(rewards).all() and not done.any()
  envs.close()


def test_a_users_environment_replaces_the_task(tiny_config, dial):
  factory = EnvFactory(tiny_config("task=mine"), dial)
  assert factory.tasks == ["mine"] and factory.action_dim == 1
  envs = factory.group(2)
  assert envs.num_envs == 2 and envs.reset([0, 1]).shape == (2, 8, 8, 3)


def test_workers_step_a_users_environment(tiny_config):
  config = tiny_config("task=mine", "env.workers=2")
  maker = partial(
    make_env, "cartpole_swingup", action_repeat=100, size=16, renderer="ray"
  )
  factory = EnvFactory(config, maker)
  pool = factory.group(2, workers=2)
  here = factory.group(2)
  try:
    assert isinstance(pool, WorkerPool)
    images = pool.reset([0, 1])
    # Made 16x16, and brought to the run's 8x8 in the worker.
    assert images.shape == (2, 8, 8, 3)
    np.testing.assert_array_equal(images, here.reset([0, 1]))
  finally:
    pool.close()
    here.close()
  with pytest.raises(UserError, match=r"a worker cannot import .*lambda"):
    EnvFactory(config, lambda: maker())


def test_the_longest_chunk_is_an_episode_and_its_reset(tiny_config):
  # 1000 control steps in decisions of 8 are 125, and the reset makes 126.
  fits = tiny_config("env.action_repeat=8", "train.chunk=126")
  assert EnvFactory(fits).action_repeats == [8]
  long = tiny_config("env.action_repeat=8", "train.chunk=127")
  with pytest.raises(UserError, match=r"chunk=127 .* 126 entries"):
    EnvFactory(long)
  require_chunk(5, 5)
  with pytest.raises(UserError, match="chunk=6 is longer than an episode"):
    require_chunk(6, 5)


def test_counters_count_decisions_and_control_steps():
  counters = Counters().add_episodes([125, 250, 125], [8, 4])
  # The tasks take turns: 125 x 8 + 250 x 4 + 125 x 8.
  assert counters.numbers() == dict(
    episodes=3,
    decisions=500,
    env_steps=3000,
    updates=0,
    evaluations=0,
    minutes=0.0,
    diverged=0,
    physics_errors=0,
    eval_physics_errors=0,
    skipped_total=0,
    worker_restarts=0,
    damaged_episodes=0,
  )


def test_scores_go_to_their_tasks():
  counters = Counters(episodes=8, env_steps=800, minutes=2.0)
  counters = counters.add_scores(["a", "b"], [1.0, 10.0, 2.0, 20.0])
  row = dict(env_steps=400, episodes=4, minutes=2.0)
  assert counters.scores == {
    "a": [row | {"returns": [1.0, 2.0]}],
    "b": [row | {"returns": [10.0, 20.0]}],
  }
  later = counters.add_scores(["a", "b"], [3.0, 30.0])
  assert len(later.scores["a"]) == 2 and len(counters.scores["a"]) == 1
