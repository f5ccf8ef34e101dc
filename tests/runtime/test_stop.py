import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from jlejepa.runtime.stop import (
  EXIT_INTERRUPTED,
  EXIT_STOPPED,
  StopSignal,
)

ROOT = Path(__file__).parents[2]
LOOP = """
import sys, time
from jlejepa.runtime.stop import StopSignal

with StopSignal(max_minutes=float(sys.argv[1])) as stop:
  print("ready", flush=True)
  while not stop.requested:
    time.sleep(0.01)
print(stop.reason, flush=True)
sys.exit(stop.exit_code)
"""


def run_loop(max_minutes, number=None):
  process = subprocess.Popen(
    [sys.executable, "-c", LOOP, str(max_minutes)],
    stdout=subprocess.PIPE,
    text=True,
    cwd=ROOT,
  )
  assert process.stdout.readline() == "ready\n"
  if number is not None:
    os.kill(process.pid, number)
  # `communicate` would miss what `readline` has already buffered.
  with process:
    out = process.stdout.read()
  return process.returncode, out.strip()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_ends_the_loop_with_exit_code_75(number):
  assert run_loop(0, number) == (75, number.name)


def test_used_up_budget_is_a_finished_run():
  assert run_loop(1e-4) == (0, "time budget")


def test_signal_only_sets_a_flag(capfd):
  with StopSignal() as stop:
    assert (stop.requested, stop.reason, stop.exit_code) == (False, "", 0)
    os.kill(os.getpid(), signal.SIGTERM)
    assert (stop.requested, stop.reason) == (True, "SIGTERM")
    assert stop.exit_code == EXIT_STOPPED
    # A scheduler may repeat itself.
    os.kill(os.getpid(), signal.SIGTERM)
  assert "SIGTERM: saving, then stopping" in capfd.readouterr().err


@pytest.mark.parametrize("first", [signal.SIGTERM, signal.SIGINT])
def test_interrupt_after_a_signal_quits_at_once(first):
  with pytest.raises(KeyboardInterrupt), StopSignal():
    os.kill(os.getpid(), first)
    os.kill(os.getpid(), signal.SIGINT)


def test_handlers_are_put_back():
  before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
  with StopSignal():
    assert signal.getsignal(signal.SIGTERM) != before[0]
  after = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
  assert before == after


def test_earlier_processes_count_towards_the_budget():
  stop = StopSignal(max_minutes=10)
  stop.resume(9.99)
  assert not stop.requested
  assert 9.99 <= stop.minutes < 10
  stop.resume(0.01)
  assert stop.requested
  endless = StopSignal(max_minutes=0)
  endless.resume(1e6)
  assert not endless.requested


def test_other_threads_get_the_budget_alone():
  seen = []

  def run():
    with StopSignal(max_minutes=1) as stop:
      stop.resume(1)
      seen.append(stop.reason)

  thread = threading.Thread(target=run)
  thread.start()
  thread.join()
  assert seen == ["time budget"]


QUIT = """
import threading, time
from jlejepa.runtime.stop import StopSignal, quit_on_interrupt

with quit_on_interrupt(), StopSignal():
  # Python would wait for it before it ends.
  threading.Thread(target=time.sleep, args=(60,)).start()
  print("ready", flush=True)
  print("kept")
  try:
    time.sleep(60)
  finally:
    print("unwound")
"""


def test_a_second_interrupt_ends_a_command_whatever_its_threads_do():
  process = subprocess.Popen(
    [sys.executable, "-c", QUIT], stdout=subprocess.PIPE, text=True, cwd=ROOT
  )
  with process:
    assert process.stdout.readline() == "ready\n"
    start = time.monotonic()
    os.kill(process.pid, signal.SIGINT)
    time.sleep(0.5)
    assert process.poll() is None
    os.kill(process.pid, signal.SIGINT)
    assert process.stdout.read() == "kept\nunwound\n"
    assert process.wait(20) == EXIT_INTERRUPTED
  assert time.monotonic() - start < 20
