import os
import socket
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from jax.sharding import AxisType

from jlejepa.runtime.errors import UserError
from jlejepa.runtime.mesh import data_mesh, replicate, shard_batch

ROOT = Path(__file__).parents[2]
EIGHT = """
import jax, jax.numpy as jnp, numpy as np
from jlejepa.runtime.errors import UserError
from jlejepa.runtime.mesh import data_mesh, replicate, shard_batch

mesh = data_mesh()
assert mesh.size == 8
x = np.arange(48, dtype=np.float32).reshape(16, 3)
batch = shard_batch(mesh, {"x": x, "nested": (x[:, 0],)})
shards = batch["x"].addressable_shards
assert len(shards) == 8 and shards[0].data.shape == (2, 3)
np.testing.assert_array_equal(np.asarray(batch["x"]), x)
assert batch["nested"][0].addressable_shards[3].data.shape == (2,)

copy = replicate(mesh, {"w": np.ones(3, np.float32), "key": jax.random.key(1)})
assert copy["w"].addressable_shards[7].data.shape == (3,)

# A loss written as a mean over the batch is the mean over all devices.
loss = jax.jit(lambda w, x: ((x @ w) ** 2).mean())
value, grad = jax.jit(jax.value_and_grad(loss))(copy["w"], batch["x"])
wanted = (x.sum(1) ** 2).mean()
np.testing.assert_allclose(value, wanted, rtol=1e-6)
np.testing.assert_allclose(grad, 2 * (x.sum(1)[:, None] * x).mean(0), rtol=1e-6)

small = data_mesh(2)
assert shard_batch(small, np.zeros(6)).addressable_shards[1].data.shape == (3,)
try:
  shard_batch(mesh, {"x": np.zeros((12, 2))})
except UserError as error:
  text = str(error)
assert "batch['x'] of shape (12, 2)" in text and "8 devices" in text, text
"""
TWO = """
import sys
import jax, numpy as np
index = int(sys.argv[1])
jax.config.update("jax_cpu_collectives_implementation", "gloo")
jax.distributed.initialize(sys.argv[2], num_processes=2, process_id=index)
from jlejepa.runtime.mesh import data_mesh, replicate, shard_batch

mesh = data_mesh()
assert mesh.size == 4
mine = np.arange(8, dtype=np.float32)[4 * index:][:4]
batch = shard_batch(mesh, mine)
assert batch.shape == (8,)
w = replicate(mesh, np.float32(2))
print(float(jax.jit(lambda w, x: w * (x ** 2).sum())(w, batch)))
"""


def run(code, devices, *arguments):
  flags = f"--xla_force_host_platform_device_count={devices}"
  return subprocess.Popen(
    [sys.executable, "-c", code, *arguments],
    env={**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"},
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
    cwd=ROOT,
  )


def test_eight_devices_share_a_batch_and_agree_with_one():
  _, errors = (process := run(EIGHT, 8)).communicate(timeout=120)
  assert process.returncode == 0, errors


def test_two_processes_join_their_parts_into_one_batch():
  with socket.socket() as probe:
    probe.bind(("127.0.0.1", 0))
    address = f"127.0.0.1:{probe.getsockname()[1]}"
  processes = [run(TWO, 2, str(i), address) for i in range(2)]
  try:
    results = [process.communicate(timeout=120) for process in processes]
  finally:
    for process in processes:
      process.kill()
      process.wait()
  # 2 (0 + 1 + 4 + ... + 49) = 280.
  for process, (out, errors) in zip(processes, results):
    assert process.returncode == 0, errors
    assert out.strip().splitlines()[-1] == "280.0"


def test_axis_type_is_auto_on_every_jax():
  mesh = data_mesh(1)
  assert mesh.axis_names == ("data",)
  assert mesh.axis_types == (AxisType.Auto,)


def test_impossible_device_counts_are_refused():
  for count in (0, -1, len(jax.devices()) + 1):
    with pytest.raises(UserError, match="num_devices must be from 1 to"):
      data_mesh(count)


def test_a_scalar_is_no_batch():
  with pytest.raises(UserError, match=r"shape \(\) does not divide"):
    shard_batch(data_mesh(1), np.float32(1))


def test_placement_changes_no_value():
  tree = {"a": np.arange(6).reshape(3, 2), "b": jax.random.key(3)}
  mesh = data_mesh(1)
  np.testing.assert_array_equal(shard_batch(mesh, tree["a"]), tree["a"])
  copy = replicate(mesh, tree)
  np.testing.assert_array_equal(copy["a"], tree["a"])
  assert (copy["b"] == tree["b"]).all()
