"""Remedies switched off: signals, other processes, and what never answers."""

import contextlib
import functools
import importlib
import math
import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from jlejepa.runtime.checkpoint import Checkpoints
from jlejepa.runtime.metrics import read_metrics
from jplanet import collect, collector
from jplanet.collect import random_policy
from jplanet.collector import Collector
from jplanet.envs import Lockstep, WorkerPool, workers

ROOT = Path(__file__).parents[2]


def start(code, *arguments):
  return subprocess.Popen(
    [sys.executable, "-c", code, *map(str, arguments)],
    env={**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": ""},
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
    cwd=ROOT,
  )


@contextlib.contextmanager
def ended(processes):
  """Ends what is still running at the end of the block."""
  try:
    yield processes
  finally:
    for process in processes:
      process.kill()
      process.communicate()


def test_fault_3_a_signal_would_cost_what_no_checkpoint_holds(tmp_path, borrow):
  """Remedy: it only sets a flag, and the run saves before it ends."""
  run, overrides = (
    borrow("reliability/test_interrupt.py", name)
    for name in ("RUN", "OVERRIDES")
  )
  off = "from jlejepa.runtime.stop import StopSignal\n"
  off += "StopSignal.__enter__ = lambda self: self\n"
  # In the second seed episode, of 12 steps each.
  with ended([start(off + run, tmp_path, 15, *overrides)]) as (process,):
    assert process.stdout.readline() == "hanging\n"
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == -signal.SIGTERM
  assert len(read_metrics(tmp_path)) == 1
  assert Checkpoints(tmp_path / "checkpoints").steps() == []


@pytest.fixture
def pair(borrow, tmp_path):
  """Starts the two processes of a run with a change, until both have saved."""
  train = borrow("runtime/test_processes.py", "TRAIN")

  def both(old, new):
    assert train.count(old) == 1
    code = train.replace(old, new)
    with socket.socket() as probe:
      probe.bind(("127.0.0.1", 0))
      address = f"127.0.0.1:{probe.getsockname()[1]}"
    two = [start(code, i, address, tmp_path, "1") for i in range(2)]
    stack.enter_context(ended(two))
    for process in two:
      assert "ready\n" in iter(process.stdout.readline, "")
    return two

  with contextlib.ExitStack() as stack:
    yield both


def test_fault_4_a_signal_to_one_process_would_save_nothing(pair, tmp_path):
  """Remedy: the processes agree when to stop."""
  start = "mesh = data_mesh()"
  off = "from jlejepa.runtime import stop as module\n"
  off += "module.largest = lambda number: number\n"
  two = pair(start, off + start)
  two[1].send_signal(signal.SIGTERM)
  # One saves while the other trains: gloo ends them, or they wait for ever.
  with contextlib.suppress(subprocess.TimeoutExpired):
    assert two[1].wait(15) not in (0, 75)
  assert Checkpoints(tmp_path / "checkpoints").steps() == [3]


@pytest.mark.slow
def test_fault_5_a_process_would_wait_for_one_that_is_gone(pair):
  """Remedy: JAX's heartbeats, ten seconds apart in the loop of that test."""
  seconds = "heartbeat_timeout_seconds=10"
  two = pair(seconds, "heartbeat_timeout_seconds=3600")
  two[1].kill()
  with pytest.raises(subprocess.TimeoutExpired):
    two[0].wait(20)


def test_fault_17_half_an_episode_would_be_learned_from(
  dial, losing, monkeypatch
):
  """Remedy: episodes that a worker took with it are played again."""
  monkeypatch.setattr(collect, "_any_lost", lambda envs: False)
  envs = losing([dial(), dial()])
  whole, lost = collect.collect(envs, [3, 4], random_policy([3, 4], 1))
  # The environment's reward is its action, but for the step that never was.
  np.testing.assert_array_equal(whole.reward, whole.action[:, 0])
  assert len(whole.reward) == 13 and len(lost.reward) == 6
  assert lost.reward[-1] == 0 != lost.action[-1, 0]


@pytest.fixture
def faulty_pool(borrow, tmp_path, monkeypatch):
  """Makes pools of one environment that fails at its first step."""
  text = borrow("planet/test_envs_vector.py", "FAULTY")
  (tmp_path / "faulty_env_for_remedies.py").write_text(text)
  monkeypatch.syspath_prepend(str(tmp_path))
  module = importlib.import_module("faulty_env_for_remedies")

  def make(fault, **options):
    maker = functools.partial(module.Env, fault, at=1)
    pool = stack.enter_context(
      contextlib.closing(WorkerPool([maker], **options))
    )
    pool.reset([0])
    return pool

  with contextlib.ExitStack() as stack:
    yield make


def test_fault_17_a_dead_worker_would_end_the_run(faulty_pool):
  """Remedy: the end of its pipe is a reason to replace it."""
  naive = lambda self, worker, deadline: self._workers[worker][1].recv()[1]
  with pytest.MonkeyPatch.context() as off:
    off.setattr(WorkerPool, "_receive", naive)
    pool = faulty_pool("die")
    with pytest.raises(EOFError):
      pool.step(np.zeros((1, 1)))
    assert pool.restarts == 0


def waits(function, seconds, end):
  """Calls a function in a thread: is it still there then? `end` ends it."""

  def call():
    with contextlib.suppress(Exception):
      function()

  thread = threading.Thread(target=call, daemon=True)
  thread.start()
  thread.join(seconds)
  waited = thread.is_alive()
  end()
  thread.join(30)
  return waited


@pytest.mark.parametrize(
  "fault, owner, name, off",
  [
    ("hang", WorkerPool, "_deadline", lambda self, seconds: 1e6),
    ("stop", workers, "limit_waits", lambda pipe, seconds: None),
  ],
)
def test_fault_18_a_worker_that_hangs_would_be_waited_for(
  faulty_pool, fault, owner, name, off, monkeypatch
):
  """Remedy: limits to the wait for an answer, and to that for its rest."""

  def step_waits(seconds):
    pool = faulty_pool(fault, timeout=0.3, max_restarts=0)
    process, _ = pool._workers[0]
    step = lambda: pool.step(np.zeros((1, 1)))
    return waits(step, seconds, end=process.kill)

  assert not step_waits(30)
  monkeypatch.setattr(owner, name, off)
  assert step_waits(2)


def test_fault_18_an_environment_that_hangs_would_be_waited_for(
  dial, monkeypatch
):
  """Remedy: a limit to the wait for a step in this process."""

  def play_waits(seconds):
    gate = threading.Event()
    env = dial(on_step=lambda: gate.wait(60))

    def play():
      with Collector(lambda: Lockstep([env])) as one:
        one.start([3], random_policy([3], 1))
        one.finish(lambda: False)

    return waits(play, seconds, end=gate.set)

  monkeypatch.setattr(collector, "PATIENCE", 0.3)
  assert not play_waits(30)
  monkeypatch.setattr(collector, "PATIENCE", math.inf)
  assert play_waits(2)
