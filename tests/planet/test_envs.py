"""Control-suite tasks as environments with pixels."""

import importlib.metadata

import dm_env
import numpy as np
import pytest

from jplanet.envs import TASKS, make_env
from jplanet.envs.suite import load_suite

suite = load_suite()


def random_actions(env, count, seed=0):
  shape = (count, *env.action_spec().shape)
  return np.random.RandomState(seed).uniform(-1, 1, shape).astype(np.float32)


def test_action_repeats_are_planets():
  assert {name: task.action_repeat for name, task in TASKS.items()} == {
    "cartpole_balance": 8,
    "cartpole_swingup": 8,
    "reacher_easy": 4,
    "cheetah_run": 4,
    "finger_spin": 2,
    "cup_catch": 4,
    "walker_walk": 2,
    "humanoid_walk": 2,
  }


@pytest.mark.parametrize("task", TASKS)
def test_every_task_gives_pixels_in_its_spec(task):
  env = make_env(task, size=16, renderer="ray")
  actions = env.action_spec()
  assert actions.dtype == np.float32
  assert np.all(actions.minimum == -1) and np.all(actions.maximum == 1)
  first = env.reset()
  assert first.first() and first.reward is None and first.discount is None
  step = env.step(np.zeros(actions.shape, np.float32))
  assert step.mid() and isinstance(step.reward, float)
  for image in (first.observation, step.observation):
    env.observation_spec().validate(image)
    assert image.dtype == np.uint8 and image.std() > 1
  assert env.observation_spec().name == "pixels"
  assert env.renderer == "ray"


@pytest.mark.parametrize("task", TASKS)
def test_rewards_and_states_are_the_suites_own(task):
  env = make_env(task, size=16, renderer="ray", seed=3)
  domain, name, repeat = TASKS[task]
  other = suite.load(domain, name, task_kwargs={"random": 3})
  env.reset()
  other.reset()
  for action in random_actions(env, 12):
    step = env.step(action)
    steps = [other.step(action) for _ in range(repeat)]
    assert step.reward == sum(one.reward for one in steps)
    for key, value in env.state().items():
      np.testing.assert_array_equal(value, np.ravel(steps[-1].observation[key]))


@pytest.mark.parametrize("repeat,decisions", [(8, 125), (300, 4), (1000, 1)])
def test_an_episode_lasts_a_thousand_steps_and_ends_by_time(repeat, decisions):
  env = make_env(
    "cartpole_balance", size=16, renderer="ray", action_repeat=repeat
  )
  step, count, total = env.reset(), 0, 0.0
  while not step.last():
    step = env.step([0.0])
    count, total = count + 1, total + step.reward
  assert count == decisions
  # A time limit is no termination.
  assert step.discount == 1.0
  assert 100 < total <= 1000
  # As dm_env has it, a step after the end starts the next episode.
  assert env.step([0.0]).first()


def test_other_tasks_of_the_suite_go_by_domain_and_task():
  env = make_env("pendulum_swingup", size=16, renderer="ray")
  assert env.action_repeat == 2
  assert env.reset().first()
  make_env("ball_in_cup_catch", size=16, renderer="ray")


def test_an_unknown_task_names_close_ones():
  with pytest.raises(ValueError, match="cheetah_run"):
    make_env("cheeta_run", renderer="ray")


@pytest.mark.parametrize(
  "options",
  [
    {"size": 0},
    {"action_repeat": 0},
    {"renderer": "vulkan"},
    {"camera": 9},
    {"supersample": 0, "renderer": "ray"},
  ],
)
def test_options_out_of_range_are_named(options):
  with pytest.raises(ValueError, match=next(iter(options))):
    make_env("cartpole_swingup", **{"renderer": "ray", **options})


def test_an_episode_is_a_function_of_seed_and_actions():
  def play(env):
    env.seed(7)
    images = [env.reset().observation]
    steps = [env.step(action) for action in random_actions(env, 5)]
    images += [step.observation for step in steps]
    return np.stack(images), [step.reward for step in steps]

  fresh = make_env("reacher_easy", size=16, renderer="ray", seed=0)
  used = make_env("reacher_easy", size=16, renderer="ray", seed=1)
  used.reset()
  for action in random_actions(used, 9, seed=2):
    used.step(action)
  one, two = play(fresh), play(used)
  np.testing.assert_array_equal(one[0], two[0])
  assert one[1] == two[1]
  used.seed(8)
  assert (used.reset().observation != one[0][0]).any()


@pytest.mark.parametrize(
  "action,message",
  [
    ([0.0, np.nan], "finite"),
    ([0.0, np.inf], "finite"),
    ([0.0], r"\(2,\)"),
    ([[0.0, 0.0]], r"\(2,\)"),
    (["a", "b"], "finite"),
  ],
)
def test_a_bad_action_is_refused_before_anything_moves(action, message):
  env = make_env("reacher_easy", size=16, renderer="ray")
  env.reset()
  before = env.physics.time()
  with pytest.raises(ValueError, match=message):
    env.step(action)
  assert env.physics.time() == before
  assert env.step([0.0, 0.0]).mid()


def test_actions_outside_their_bounds_are_clipped():
  ends = []
  for action in ([1.0], [5.0]):
    env = make_env("cartpole_swingup", size=16, renderer="ray")
    env.reset()
    ends.append((env.step(action).reward, env.state()["position"]))
  assert ends[0][0] == ends[1][0]
  np.testing.assert_array_equal(ends[0][1], ends[1][1])


def test_a_diverging_simulation_ends_the_episode_as_if_time_were_up():
  env = make_env("cheetah_run", size=16, renderer="ray")
  env.reset()
  good = env.step(np.zeros(6)).observation
  env.physics.data.qvel[:] = 1e12
  step = env.step(np.zeros(6))
  assert step.last() and step.discount == 1.0
  assert np.isfinite(step.reward)
  np.testing.assert_array_equal(step.observation, good)
  assert env.physics_errors == 1
  assert env.reset().first() and env.step(np.zeros(6)).mid()
  assert env.physics_errors == 1


def test_earlier_images_are_not_overwritten():
  env = make_env("cartpole_swingup", size=16, renderer="ray")
  first = env.reset().observation
  kept = first.copy()
  env.step([1.0])
  np.testing.assert_array_equal(first, kept)


def test_mujoco_4_is_refused_with_the_pin(monkeypatch):
  monkeypatch.setattr(importlib.metadata, "version", lambda name: "4.0.0")
  with pytest.raises(ImportError, match=r"mujoco>=3\.17,<4"):
    make_env("cartpole_swingup", renderer="ray")


def test_a_missing_mujoco_names_the_command(monkeypatch):
  def missing(name):
    raise importlib.metadata.PackageNotFoundError(name)

  monkeypatch.setattr(importlib.metadata, "version", missing)
  with pytest.raises(ImportError, match=r"pip install 'jplanet\[env\]'"):
    make_env("cartpole_swingup", renderer="ray")


@pytest.mark.parametrize(
  "task,message",
  [("lqr_lqr_2_1", "finite bounds"), ("quadruped_escape", "OpenGL")],
)
def test_tasks_that_cannot_be_played_say_why(task, message):
  with pytest.raises(ValueError, match=message):
    make_env(task, size=16, renderer="ray")


@pytest.mark.slow
def test_every_other_task_of_the_suite_can_be_played():
  for domain, task in suite.ALL_TASKS:
    if domain == "lqr" or (domain, task) == ("quadruped", "escape"):
      continue
    env = make_env(f"{domain}_{task}", size=16, renderer="ray")
    env.reset()
    step = env.step(np.zeros(env.action_spec().shape))
    assert isinstance(step, dm_env.TimeStep) and step.observation.std() > 0
