import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from jlejepa.runtime.checkpoint import CheckpointError, Checkpoints

ROOT = Path(__file__).parents[2]
SAVER = """
import sys
import numpy as np
from jlejepa.runtime.checkpoint import Checkpoints

checkpoints = Checkpoints(sys.argv[1])
for step in range(10_000):
  checkpoints.save(step, {"w": np.full(300_000, step, np.float32)})
  print(step, flush=True)
"""
DEVICES = """
import sys
import jax, numpy as np
from jlejepa.runtime.checkpoint import Checkpoints
from jlejepa.runtime.mesh import data_mesh, replicate, shard_batch

mesh = data_mesh()
assert mesh.size == int(sys.argv[3]), mesh
state = {
  "x": shard_batch(mesh, np.arange(16.0, dtype=np.float32)),
  "w": replicate(mesh, np.ones(3, np.float32)),
  "key": replicate(mesh, jax.random.key(7)),
}
checkpoints = Checkpoints(sys.argv[1])
if sys.argv[2] == "save":
  checkpoints.save_beside(1, state)
  del state["key"]
  jax.jit(lambda s: jax.tree.map(lambda x: 2 * x, s), donate_argnums=0)(state)
  assert state["x"].is_deleted() and state["w"].is_deleted()
  checkpoints.wait()
else:
  template = jax.tree.map(lambda x: x, state)
  _, got, _ = checkpoints.restore(template)
  assert (np.asarray(got["x"]) == np.arange(16)).all()
  for name in state:
    assert got[name].sharding == state[name].sharding, name
  # One program on all three: their devices must agree.
  total = jax.jit(
    lambda s: s["x"].sum() + s["w"].sum() + jax.random.uniform(s["key"])
  )(got)
  assert 123 <= total < 124, total
  plain = jax.eval_shape(lambda: {
    "x": jax.numpy.zeros(16), "w": jax.numpy.zeros(3), "key": jax.random.key(0)
  })
  _, got, _ = checkpoints.restore(plain)
  assert (np.asarray(got["x"]) == np.arange(16)).all()
"""


def test_full_disk_is_an_error_and_older_checkpoints_stay(tmp_path):
  saved = Checkpoints(tmp_path)
  saved.save(6, {"w": np.zeros(200_000)})
  saved.save(8, {"w": np.zeros(200_000)})
  state = {"w": np.random.default_rng(0).random(200_000)}
  old_limit = resource.getrlimit(resource.RLIMIT_FSIZE)
  # Without this the signal would kill the process instead of failing writes.
  old_handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
  resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, old_limit[1]))
  try:
    with pytest.raises(CheckpointError, match="could not be written") as error:
      saved.save(9, state)
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, old_limit)
    signal.signal(signal.SIGXFSZ, old_handler)
  assert "\n" not in str(error.value)
  assert sorted(os.listdir(tmp_path)) == ["6", "8"]
  assert saved.restore(state)[0] == 8
  saved.save(9, state)
  assert saved.steps() == [8, 9]


def test_kill_during_saves_leaves_a_whole_checkpoint(tmp_path):
  template = {"w": np.zeros(300_000, np.float32)}
  rng = np.random.default_rng(0)
  for _ in range(3):
    process = subprocess.Popen(
      [sys.executable, "-c", SAVER, str(tmp_path)],
      stdout=subprocess.PIPE,
      text=True,
      cwd=ROOT,
    )
    try:
      while int(process.stdout.readline()) < 3:
        pass
      time.sleep(rng.uniform(0, 0.15))
    finally:
      os.kill(process.pid, signal.SIGKILL)
      process.stdout.close()
      process.wait()
    step, state, _ = Checkpoints(tmp_path).restore(template)
    assert step >= 3
    np.testing.assert_array_equal(state["w"], step)
    shutil.rmtree(tmp_path)


def run_on_devices(count, *arguments):
  flags = f"--xla_force_host_platform_device_count={count}"
  environment = {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
  command = [sys.executable, "-c", DEVICES, *arguments, str(count)]
  subprocess.run(command, env=environment, cwd=ROOT, check=True, timeout=120)


def test_state_of_eight_devices_restores_on_one_and_two(tmp_path):
  run_on_devices(8, str(tmp_path), "save")
  for count in (1, 2):
    run_on_devices(count, str(tmp_path), "restore")
