"""Two processes of one run on this machine, joined by gloo."""

import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from jlejepa.runtime.checkpoint import Checkpoints
from jlejepa.runtime.metrics import read_metrics

ROOT = Path(__file__).parents[2]
# A training loop in small: each process polls, and all stop at one step.
TRAIN = """
import sys, time
import jax, numpy as np
index, address, workdir = int(sys.argv[1]), sys.argv[2], sys.argv[3]
jax.config.update("jax_cpu_collectives_implementation", "gloo")
jax.distributed.initialize(
  address, num_processes=2, process_id=index, heartbeat_timeout_seconds=10)
from ml_collections import ConfigDict
from jlejepa.runtime.checkpoint import Checkpoints
from jlejepa.runtime.errors import exit_on_user_error
from jlejepa.runtime.mesh import data_mesh, replicate, shard_batch
from jlejepa.runtime.metrics import MetricsWriter
from jlejepa.runtime.run_folder import RunFolder
from jlejepa.runtime.stop import StopSignal

mesh = data_mesh()
step_fn = jax.jit(lambda state, x: jax.tree.map(lambda w: w + x.mean(), state))
state = replicate(mesh, {"w": np.zeros(3, np.float32)})
batch = shard_batch(mesh, np.ones(2, np.float32))
config = ConfigDict({"lr": float(sys.argv[4])})
with (
  exit_on_user_error(),
  RunFolder.open(workdir, config) as folder,
  MetricsWriter(folder.path, tensorboard=False) as metrics,
  StopSignal() as stop,
):
  checkpoints, step = Checkpoints(folder.checkpoints), 0
  restored = checkpoints.restore(state)
  if restored is not None:
    step, state, _ = restored
    metrics.truncate_after("step", step)
  print("from", step, flush=True)
  while step < 100_000 and not stop.requested:
    state = step_fn(state, batch)
    step += 1
    metrics.write({"step": step, "w": float(state["w"][0])})
    if step == 3:
      checkpoints.save(step, state, {"step": step})
      print("ready", flush=True)
    # Far apart, as on two machines.
    time.sleep(0.002 + 0.004 * index)
  checkpoints.save(step, state, {"step": step})
print("stopped", step, stop.reason, flush=True)
sys.exit(stop.exit_code)
"""


@pytest.fixture
def start(tmp_path):
  """Starts both processes of a run, and ends them after the test."""
  started = []

  def both(rate="1"):
    with socket.socket() as probe:
      probe.bind(("127.0.0.1", 0))
      address = f"127.0.0.1:{probe.getsockname()[1]}"
    processes = [
      subprocess.Popen(
        [sys.executable, "-c", TRAIN, str(i), address, str(tmp_path), rate],
        env={**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": ""},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
      )
      for i in range(2)
    ]
    started.extend(processes)
    return processes

  yield both
  for process in started:
    process.kill()
    process.wait()
    process.stdout.close()
    process.stderr.close()


def await_line(process, line):
  for found in process.stdout:
    if found.strip() == line:
      return
  raise AssertionError(process.stderr.read())


@pytest.mark.slow
def test_a_signal_to_one_process_stops_all_at_one_step(start, tmp_path):
  processes = start()
  for process in processes:
    await_line(process, "ready")
  processes[1].send_signal(signal.SIGTERM)
  outs = [process.communicate(timeout=60) for process in processes]
  assert [p.returncode for p in processes] == [75, 75], outs
  stops = [re.search(r"stopped (\d+) SIGTERM", out)[1] for out, _ in outs]
  step = int(stops[0])
  assert stops[1] == stops[0] and step >= 3
  # Both have written one checkpoint, and the first one alone its rows.
  assert Checkpoints(tmp_path / "checkpoints").steps() == sorted({3, step})
  assert [row["step"] for row in read_metrics(tmp_path)] == [
    *range(1, step + 1)
  ]
  # Another config is refused in both, and neither waits for the other.
  processes = start(rate="2")
  for process in processes:
    _, err = process.communicate(timeout=60)
    assert process.returncode == 2 and "another config" in err
  # The same command goes on in both.
  processes = start()
  for process in processes:
    await_line(process, f"from {step}")


@pytest.mark.slow
def test_when_one_process_dies_the_other_ends_too(start, tmp_path):
  processes = start()
  for process in processes:
    await_line(process, "ready")
  processes[1].send_signal(signal.SIGKILL)
  # The heartbeat's ten seconds, and what a busy machine takes.
  _, err = processes[0].communicate(timeout=100)
  assert processes[0].returncode not in (0, 75), err
  # What was complete is intact; nothing half written passes for complete.
  saved = Checkpoints(tmp_path / "checkpoints")
  assert saved.steps() == [3]
  assert (
    saved.restore({"w": np.zeros(3, np.float32)})[1]["w"].tolist() == [3.0] * 3
  )
