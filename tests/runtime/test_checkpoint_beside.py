"""Checkpoints that are written beside what the program does next."""

import threading
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jlejepa.runtime.checkpoint import CheckpointError, Checkpoints


@pytest.fixture
def held(tmp_path, monkeypatch):
  """Checkpoints, and an event before which nothing is written."""
  checkpoints, event = Checkpoints(tmp_path), threading.Event()
  write, checkpoints.log = checkpoints._save, []

  def after_event(step, *args):
    checkpoints.log.append(f"{step} begins")
    assert event.wait(60)
    write(step, *args)
    checkpoints.log.append(f"{step} ends")

  monkeypatch.setattr(checkpoints, "_save", after_event)
  yield checkpoints, event
  event.set()


def test_what_comes_next_does_not_change_what_is_saved(held):
  checkpoints, event = held
  state = {
    "donated": jnp.arange(1000.0),
    "host": np.arange(3),
    "key": jax.random.key(1),
    "number": 4,
  }
  wanted = {"donated": np.arange(1000.0), "host": np.arange(3), "number": 4}
  extra = {"rows": [1]}
  checkpoints.save_beside(3, state, extra)
  double = jax.jit(lambda x: 2 * x, donate_argnums=0)
  assert double(state["donated"])[1] == 2 and state["donated"].is_deleted()
  state["host"][:] = 7
  state["number"] = 5
  extra["rows"].append(2)
  assert checkpoints.steps() == []
  event.set()
  checkpoints.wait()
  template = state | {"donated": np.zeros(1000, np.float32)}
  step, tree, found = checkpoints.restore(template)
  assert (step, found) == (3, {"rows": [1]})
  assert jnp.array_equal(
    jax.random.key_data(tree.pop("key")), jax.random.key_data(state["key"])
  )
  jax.tree.map(np.testing.assert_array_equal, tree, wanted)


def test_the_next_one_waits_for_the_one_before(held):
  checkpoints, event = held
  checkpoints.save_beside(1, {"a": 1})
  threading.Timer(0.2, event.set).start()
  checkpoints.save(2, {"a": 2})
  assert checkpoints.log == ["1 begins", "1 ends", "2 begins", "2 ends"]


@pytest.mark.parametrize(
  "later", ["check", "wait", "save", "save_beside", "end"]
)
def test_what_cannot_be_written_is_told_at_the_next_chance(tmp_path, later):
  Checkpoints(tmp_path).save(1, {"a": 1})
  with (
    pytest.raises(CheckpointError, match="/2 could not be written"),
    Checkpoints(tmp_path) as checkpoints,
  ):
    checkpoints._complete = full_disk
    checkpoints.save_beside(2, {"a": 2})
    if later == "check":
      while True:  # Until the thread is done, or the test's time is up.
        checkpoints.check()
        time.sleep(0.01)
    elif later == "wait":
      checkpoints.wait()
    elif later != "end":
      getattr(checkpoints, later)(3, {"a": 3})
  assert Checkpoints(tmp_path).restore({"a": 0})[:2] == (1, {"a": 1})


def full_disk(*_):
  raise OSError(28, "No space left on device")


def test_the_end_waits_and_hides_no_other_error(tmp_path):
  with pytest.raises(ZeroDivisionError), Checkpoints(tmp_path) as checkpoints:
    checkpoints.save_beside(1, {"a": 1})
    raise ZeroDivisionError
  assert checkpoints.steps() == [1]
  with pytest.raises(ZeroDivisionError), Checkpoints(tmp_path) as checkpoints:
    checkpoints._complete = full_disk
    checkpoints.save_beside(2, {"a": 1})
    raise ZeroDivisionError
  assert checkpoints.steps() == [1]


def test_an_interrupt_does_not_wait_for_the_disk(held):
  checkpoints, event = held
  with pytest.raises(KeyboardInterrupt), checkpoints:
    checkpoints.save_beside(1, {"a": 1})
    raise KeyboardInterrupt
  assert not event.is_set() and checkpoints.steps() == []


def test_restoring_waits_for_what_is_under_way(held):
  checkpoints, event = held
  checkpoints.save_beside(1, {"a": 1})
  threading.Timer(0.2, event.set).start()
  assert checkpoints.restore({"a": 0})[:2] == (1, {"a": 1})
