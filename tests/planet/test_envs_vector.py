"""Several environments together, in one process and in several."""

import contextlib
import functools
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from jplanet.envs import Lockstep, WorkerError, WorkerPool, make_env

# Episodes of 4, 7 and 10 decisions.
MAKERS = [
  {
    "task": "cartpole_swingup",
    "size": 16,
    "renderer": "ray",
    "action_repeat": repeat,
  }
  for repeat in (250, 150, 100)
]


def lockstep():
  return Lockstep([make_env(**maker) for maker in MAKERS])


def play(envs, steps=12):
  rng = np.random.RandomState(0)
  record = [envs.reset([4, 5, 6])]
  for _ in range(steps):
    action = rng.uniform(-1, 1, (envs.num_envs, envs.action_dim))
    record.append(envs.step(action.astype(np.float32)))
  return record


def test_finished_environments_idle():
  record = play(lockstep())
  assert record[0].shape == (3, 16, 16, 3) and record[0].dtype == np.uint8
  ends = [4, 7, 10]
  for t, (images, rewards, done) in enumerate(record[1:], 1):
    assert rewards.dtype == np.float32 and done.dtype == bool
    np.testing.assert_array_equal(done, [t >= end for end in ends])
    for i, end in enumerate(ends):
      if t > end:
        assert rewards[i] == 0
        np.testing.assert_array_equal(images[i], record[end][0][i])


def test_lockstep_is_each_environment_alone():
  record = play(lockstep(), steps=4)
  env = make_env(**MAKERS[1])
  env.seed(5)
  np.testing.assert_array_equal(record[0][1], env.reset().observation)
  rng = np.random.RandomState(0)
  for images, rewards, _ in record[1:]:
    step = env.step(rng.uniform(-1, 1, (3, 1)).astype(np.float32)[1])
    np.testing.assert_array_equal(images[1], step.observation)
    assert rewards[1] == np.float32(step.reward)


@pytest.mark.slow
def test_workers_give_the_bits_of_lockstep():
  pool = WorkerPool(MAKERS, num_workers=2)
  try:
    ours, theirs = play(pool), play(lockstep())
    assert pool.renderer == "ray" and pool.action_dim == 1
    assert pool.image_shape == (16, 16, 3)
    assert pool.restarts == pool.physics_errors == 0
  finally:
    pool.close()
  np.testing.assert_array_equal(ours[0], theirs[0])
  for one, two in zip(ours[1:], theirs[1:]):
    for a, b in zip(one, two):
      np.testing.assert_array_equal(a, b)
      assert a.dtype == b.dtype


def test_misuse_is_named():
  envs = lockstep()
  with pytest.raises(ValueError, match="reset"):
    envs.step(np.zeros((3, 1)))
  with pytest.raises(ValueError, match="3 seeds"):
    envs.reset([1])
  envs.reset([1, 2, 3])
  with pytest.raises(ValueError, match=r"\(3, 1\)"):
    envs.step(np.zeros((3, 2)))
  with pytest.raises(ValueError, match="finite"):
    envs.step(np.full((3, 1), np.nan))
  with pytest.raises(ValueError, match="same actions"):
    Lockstep([make_env(**MAKERS[0]), make_env("reacher_easy", renderer="ray")])
  with pytest.raises(ValueError, match="num_workers"):
    WorkerPool(MAKERS, num_workers=4)
  with pytest.raises(ValueError, match="top level"):
    WorkerPool([lambda: None])


FAULTY = """
import os, sys, time
import dm_env
import numpy as np
from dm_env import specs

class Env(dm_env.Environment):
  def __init__(self, fault=None, at=3):
    self.fault, self.at, self.count = fault, at, 0
    if fault == "build":
      raise OSError("cannot be built")
  def action_spec(self):
    return specs.BoundedArray((1,), np.float32, -1, 1)
  def observation_spec(self):
    return specs.BoundedArray((4, 4, 3), np.uint8, 0, 255)
  def see(self):
    return np.full((4, 4, 3), self.count, np.uint8)
  def seed(self, seed):
    self.count = seed
  def reset(self):
    return dm_env.restart(self.see())
  def step(self, action):
    self.count += 1
    if self.count == self.at:
      if self.fault == "die":
        os._exit(7)
      if self.fault == "hang":
        time.sleep(600)
      if self.fault == "raise":
        raise KeyError("a fault of the user")
      if self.fault == "stop":
        frame = sys._getframe()
        while "pipe" not in frame.f_locals:
          frame = frame.f_back
        # The length of an answer, and a part of it.
        os.write(frame.f_locals["pipe"].fileno(), bytes([0, 0, 16, 0]) + b"x")
        time.sleep(600)
    if self.fault == "jax":
      self.count = int("jax" in sys.modules)
    return dm_env.transition(1.0, self.see())
"""


@pytest.fixture
def faulty(tmp_path, monkeypatch):
  """Returns a factory of makers that a spawned process can import."""
  (tmp_path / "faulty_env_for_tests.py").write_text(FAULTY)
  monkeypatch.syspath_prepend(str(tmp_path))
  import faulty_env_for_tests

  return lambda **options: functools.partial(
    faulty_env_for_tests.Env, **options
  )


def test_workers_never_load_jax(faulty):
  import jax

  assert jax is not None
  pool = WorkerPool([faulty(fault="jax")])
  try:
    pool.reset([0])
    images, _, _ = pool.step(np.zeros((1, 1)))
    assert (images == 0).all()
  finally:
    pool.close()


@pytest.mark.parametrize("fault", ["die", "hang", "raise", "stop"])
def test_a_lost_worker_ends_its_episodes_and_is_replaced(faulty, fault, capfd):
  pool = WorkerPool([faulty(), faulty(fault=fault)], timeout=2.0)
  try:
    pool.reset([0, 0])
    actions = np.zeros((2, 1), np.float32)
    for count in (1, 2):
      images, rewards, done = pool.step(actions)
      assert not done.any() and (images == count).all()
    start = time.monotonic()
    images, rewards, done = pool.step(actions)
    assert time.monotonic() - start < 30
    # Its episode is over, on the last image; the other one goes on.
    np.testing.assert_array_equal(done, [False, True])
    np.testing.assert_array_equal(rewards, [1, 0])
    assert (images[0] == 3).all() and (images[1] == 2).all()
    assert pool.restarts == 1
    np.testing.assert_array_equal(pool.lost, [False, True])
    assert capfd.readouterr().err.startswith("replacing worker 1")
    _, _, done = pool.step(actions)
    np.testing.assert_array_equal(done, [False, True])
    assert (pool.reset([10, 20])[1] == 20).all()
    assert not pool.lost.any()
    images, _, done = pool.step(actions)
    assert not done.any() and (images[1] == 21).all()
  finally:
    pool.close()


def test_a_worker_killed_from_outside_restarts_at_the_reset(faulty):
  pool = WorkerPool([faulty(), faulty()])
  try:
    os.kill(pool._workers[0][0].pid, signal.SIGKILL)
    assert (pool.reset([3, 4])[0] == 3).all()
    assert pool.restarts == 1
    # A signal to the whole group is the parent's to act on.
    os.kill(pool._workers[1][0].pid, signal.SIGTERM)
    _, _, done = pool.step(np.zeros((2, 1)))
    assert not done.any() and pool.restarts == 1
  finally:
    pool.close()


PARENT = """
import functools, sys
import numpy as np
from jplanet.envs import WorkerPool
sys.path.insert(0, sys.argv[1])
import faulty_env_for_tests

pool = WorkerPool([functools.partial(faulty_env_for_tests.Env, "hang", 1)])
pool.reset([0])
print(pool._workers[0][0].pid, flush=True)
pool.step(np.zeros((1, 1)))
"""


def test_a_worker_that_hangs_ends_with_its_parent(faulty, tmp_path):
  process = subprocess.Popen(
    [sys.executable, "-c", PARENT, str(tmp_path)],
    stdout=subprocess.PIPE,
    text=True,
  )
  with process:
    worker = int(process.stdout.readline())
    time.sleep(0.5)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
  deadline = time.monotonic() + 60
  while os.path.exists(f"/proc/{worker}"):
    assert time.monotonic() < deadline
    time.sleep(0.05)


def test_too_many_restarts_raise_with_the_last_traceback(faulty):
  pool = WorkerPool([faulty(fault="raise", at=1)], max_restarts=0)
  pool.reset([0])
  with pytest.raises(WorkerError) as caught:
    pool.step(np.zeros((1, 1)))
  message = str(caught.value)
  assert "worker 0" in message and "a fault of the user" in message
  assert "faulty_env_for_tests.py" in message and "max_restarts=0" in message


def test_an_environment_that_cannot_be_built_says_why(faulty):
  with pytest.raises(WorkerError, match="cannot be built"):
    WorkerPool([faulty(fault="build")])


def test_the_limit_of_restarts_is_for_faults_in_a_row(faulty):
  # Dies at the third step from seed 0 alone.
  pool = WorkerPool([faulty(fault="die", at=3)], max_restarts=1)
  one = np.zeros((1, 1), np.float32)
  try:
    for _ in range(2):
      pool.reset([0])
      for _ in range(3):
        pool.step(one)
      assert pool.lost.all()
      # A whole round without a fault in between.
      pool.reset([10])
      pool._done[:] = True
      pool.reset([10])
    assert pool.restarts == 2
    for seed in (0, 0):
      pool.reset([seed])
      with (
        pytest.raises(WorkerError, match="max_restarts=1")
        if (pool._in_a_row == 1)
        else contextlib.nullcontext()
      ):
        for _ in range(3):
          pool.step(one)
  finally:
    pool.close()
