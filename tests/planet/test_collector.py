"""Episodes collected beside the updates are those collected after them."""

import threading
import time
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from jplanet import report, train, trainer
from jplanet.collect import Policy, collect, random_policy
from jplanet.collector import Collector
from jplanet.envs import Lockstep, WorkerError, check_env
from jplanet.train import fit
from jplanet.trainer import Trainer

SEEDS = [3, 4]


@pytest.fixture
def make_envs(dial):
  return lambda: Lockstep([check_env(dial(9), size=8) for _ in SEEDS])


def never():
  return False


def blocking_policy(gate):
  """Waits for `gate` at its second decision."""

  def act(carry, images, t):
    if t == 1:
      assert gate.wait(30)
    return np.zeros((len(images), 1), np.float32), carry

  return Policy(lambda: None, act)


def test_a_thread_plays_the_same_episodes(make_envs):
  expected = collect(make_envs(), SEEDS, random_policy(SEEDS, 1))
  with Collector(make_envs) as collector:
    assert not collector.under_way
    collector.start(SEEDS, random_policy(SEEDS, 1))
    assert collector.under_way
    played = collector.finish(never)
    assert not collector.under_way
  assert (played.diverged, played.restarts) == (0, 0) and played.seconds > 0
  for one, two in zip(expected, played.episodes, strict=True):
    for a, b in zip(one, two, strict=True):
      np.testing.assert_array_equal(a, b)


def test_one_round_at_a_time_and_it_can_be_given_up(make_envs):
  gate = threading.Event()
  with Collector(make_envs) as collector:
    collector.start(SEEDS, blocking_policy(gate))
    with pytest.raises(RuntimeError, match="a round is under way"):
      collector.start(SEEDS, blocking_policy(gate))
    threading.Timer(0.3, gate.set).start()
    asked = []
    assert collector.finish(lambda: asked.append(0) or True) is None
    assert asked
    # Given up is not stopped for ever.
    collector.start(SEEDS, random_policy(SEEDS, 1))
    assert len(collector.finish(never).episodes) == 2
    gate.clear()
    collector.start(SEEDS, blocking_policy(gate))
    threading.Timer(0.3, gate.set).start()
  # Left in the middle of a round: its thread has ended.
  assert not [t for t in threading.enumerate() if "collect" in t.name]


def test_an_error_of_the_thread_reaches_the_caller(make_envs):
  def act(carry, images, t):
    raise ValueError("a policy that fails")

  with Collector(make_envs) as collector:
    collector.start(SEEDS, Policy(lambda: None, act))
    with pytest.raises(ValueError, match="a policy that fails"):
      collector.finish(never)


def test_an_environment_lives_in_one_thread(dial):
  """Or its OpenGL context would be of no use to it."""
  seen = {}

  class Threads(dial):
    def __init__(self):
      super().__init__(9)
      seen["made"] = threading.get_ident()

    def step(self, action):
      seen["stepped"] = threading.get_ident()
      return super().step(action)

    def close(self):
      seen["closed"] = threading.get_ident()

  with Collector(lambda: Lockstep([check_env(Threads(), size=8)])) as collector:
    collector.start([1], random_policy([1], 1))
    collector.finish(never)
  assert list(seen) == ["made", "stepped", "closed"]
  assert len(set(seen.values())) == 1
  assert threading.get_ident() not in seen.values()


def test_environments_are_closed_after_an_error(make_envs):
  closed, asked = [], threading.Event()

  def make():
    envs = make_envs()
    envs.close = lambda: closed.append(True)
    return envs

  def act(carry, images, t):
    asked.set()
    raise ValueError("a policy that fails")

  with pytest.raises(ValueError, match="a policy that fails"):  # noqa: SIM117
    with Collector(make) as collector:
      collector.start(SEEDS, Policy(lambda: None, act))
      assert asked.wait(30)
  assert closed

  def fail():
    raise RuntimeError("no environment here")

  with pytest.raises(RuntimeError, match="no environment here"):
    Collector(fail)


class AtOnce(Collector):
  """Plays when the episodes are wanted; nothing runs beside anything."""

  def start(self, seeds, policy):
    self._args = seeds, policy
    self._future = SimpleNamespace()

  def finish(self, should_stop):
    self._future = None
    return self._await(self._submit(self._play, *self._args))


def run(monkeypatch, config, folder, env, collector=Collector):
  """Trains and notes what each planned round was collected with."""
  rounds = []

  class Kept(Trainer):
    def start_round(self, *, random):
      if not random:
        weights = jax.device_get(self.state.collecting_params)
        rounds.append((self.counters.updates, weights))
      super().start_round(random=random)

  monkeypatch.setattr(trainer, "Collector", collector)
  monkeypatch.setattr(train, "Trainer", Kept)
  monkeypatch.setattr(report, "write_pictures", lambda *args: {})
  fit(config, folder, env=env, quiet=True)
  return rounds


def same(one, two):
  return all(
    np.array_equal(a, b)
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(two), strict=True)
  )


@pytest.mark.slow
def test_rounds_use_the_weights_of_the_phase_before(
  monkeypatch, tiny_config, dial, tmp_path, rows_without_times
):
  config = tiny_config()
  assert config.train.overlap
  rounds = run(monkeypatch, config, tmp_path / "beside", dial)
  # Started before the 3 updates of each phase.
  assert [updates for updates, _ in rounds] == [0, 3, 6]
  assert not same(rounds[0][1], rounds[1][1])

  again = run(monkeypatch, config, tmp_path / "at_once", dial, AtOnce)
  assert rows_without_times(tmp_path / "beside") == rows_without_times(
    tmp_path / "at_once"
  )
  assert all(same(a[1], b[1]) for a, b in zip(rounds, again, strict=True))

  after = run(
    monkeypatch, tiny_config("train.overlap=false"), tmp_path / "after", dial
  )
  assert [updates for updates, _ in after] == [3, 6, 9]


@pytest.mark.slow
def test_the_next_round_is_played_while_a_checkpoint_is_written(
  monkeypatch, tiny_config, dial, tmp_path
):
  """A save is made beside a round; none is begun that nobody fetches."""
  saves = []

  class Kept(Trainer):
    def save(self):
      saves.append((self.counters.episodes, self.collector.under_way))
      super().save()

  monkeypatch.setattr(train, "Trainer", Kept)
  monkeypatch.setattr(report, "write_pictures", lambda *args: {})
  for overlap in (True, False):
    saves.clear()
    config = tiny_config(
      f"train.overlap={str(overlap).lower()}", "runtime.checkpoint_every=1"
    )
    fit(config, tmp_path / f"{overlap}", env=dial, quiet=True)
    *during, last, at_the_end = saves
    assert during
    assert all(beside is overlap for _, beside in during)
    assert last == at_the_end == (config.train.max_episodes, False)


class Hanging(Lockstep):
  """Waits for `gate` at its third step."""

  steps = 0

  def __init__(self, envs):
    super().__init__(envs)
    self.gate, self.hangs = threading.Event(), threading.Event()

  def step(self, actions):
    self.steps += 1
    if self.steps == 3:
      self.hangs.set()
      self.gate.wait(60)
    return super().step(actions)


@pytest.fixture
def make_hanging(dial):
  gates = []

  def make():
    envs = Hanging([check_env(dial(9), size=8) for _ in SEEDS])
    gates.append(envs.gate)
    return envs

  yield make
  for gate in gates:
    gate.set()


def test_an_environment_that_hangs_is_not_waited_for(make_hanging, monkeypatch):
  monkeypatch.setattr("jplanet.collector.PATIENCE", 0.5)
  start = time.monotonic()
  with pytest.raises(WorkerError, match=r"answered for 0\.5 s"):  # noqa: SIM117
    with Collector(make_hanging) as one:
      one.start(SEEDS, random_policy(SEEDS, 1))
      one.finish(never)
  # Giving up a round waits no longer, and neither does leaving the block.
  with pytest.raises(WorkerError, match="not answered"):  # noqa: SIM117
    with Collector(make_hanging) as one:
      one.start(SEEDS, random_policy(SEEDS, 1))
      assert one._envs.hangs.wait(30)
  assert time.monotonic() - start < 20


@pytest.mark.parametrize("when", ["made", "closed"])
def test_nor_is_one_that_hangs_elsewhere(make_envs, monkeypatch, when):
  monkeypatch.setattr("jplanet.collector.PATIENCE", 0.5)
  gate = threading.Event()

  def make():
    envs = make_envs()
    envs.close = lambda: gate.wait(60)
    if when == "made":
      gate.wait(60)
    return envs

  with pytest.raises(WorkerError, match="not answered"), Collector(make):
    assert when == "closed"
  gate.set()


def test_thinking_for_long_is_no_fault_of_the_environments(
  make_envs, monkeypatch
):
  """The first decision of a large model compiles for minutes."""
  monkeypatch.setattr("jplanet.collector.PATIENCE", 0.3)
  gate = threading.Event()
  threading.Timer(1.0, gate.set).start()
  with Collector(make_envs) as one:
    one.start(SEEDS, blocking_policy(gate))
    assert len(one.finish(never).episodes) == 2


def test_an_interrupt_waits_for_no_environment(make_hanging):
  start = time.monotonic()
  with pytest.raises(KeyboardInterrupt):  # noqa: SIM117
    with Collector(make_hanging) as one:
      one.start(SEEDS, random_policy(SEEDS, 1))
      assert one._envs.hangs.wait(30)
      raise KeyboardInterrupt
  assert time.monotonic() - start < 20
