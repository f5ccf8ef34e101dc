"""A whole training step on eight devices is the step on one."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EIGHT = """
import jax, jax.numpy as jnp, numpy as np, optax
import jlejepa
from jlejepa.encoders import make_encoder, make_projector
from jlejepa.learner import LossOptions, init_state, make_train_step
from jlejepa.model import Model
from jlejepa.runtime.mesh import data_mesh, replicate, shard_batch
from jlejepa.views import digits_specs, make_views

global_spec, local_spec = digits_specs()
views = lambda key, image: make_views(
  key, image, global_spec, local_spec, num_global=2, num_local=2
)
encoder = make_encoder("compact", widths=(4, 8), blocks=(1, 0), out=8,
                       stem_stride=1)
model = Model(encoder, make_projector(layers=2, hidden=8, out=4))
optimizer = optax.sgd(0.1)
options = LossOptions(
  lam=0.2, num_slices=8, t_max=3.0, num_points=17, test=None,
  sampler=jlejepa.random_directions, average=0.5,
)
rng = np.random.default_rng(0)
images = rng.integers(0, 256, (16, 8, 8, 1), np.uint8)
labels = rng.integers(0, 3, 16).astype(np.int32)
state = init_state(jax.random.key(0), model, optimizer,
                   jnp.zeros((2, 8, 8, 1)), num_classes=3, average=0.5)
step = jax.jit(make_train_step(model, optimizer, views, options))
results = []
for count in (1, 8):
  mesh = data_mesh(count)
  batch = shard_batch(mesh, (images, labels))
  assert len(batch[0].addressable_shards) == count
  new, metrics = step(replicate(mesh, state), *batch, jax.random.key(1))
  new, _ = step(new, *batch, jax.random.key(1))
  if count == 8:
    shards = jax.tree.leaves(new.params)[0].addressable_shards
    assert len(shards) == 8
  results.append(jax.device_get((new, metrics)))
(one, one_metrics), (eight, eight_metrics) = results
moved = jax.tree.map(lambda a, b: np.abs(a - b).max(), one.params,
                     jax.device_get(state.params))
# BatchNorm takes away what a bias before it adds.
assert moved["projector"]["hidden0"].pop("bias") < 1e-6
assert min(jax.tree.leaves(moved)) > 1e-3
# Sums over the batch in another order, in float32: when measured, at most 3e-7
# of the largest entry.
for a, b in ((one, eight), (one_metrics, eight_metrics)):
  jax.tree.map(
    lambda x, y: np.testing.assert_allclose(x, y, rtol=2e-6, atol=5e-7), a, b
  )
stats = jax.tree.leaves(one.batch_stats)
assert any(np.abs(x).max() > 0 for x in stats)
print("equal")
"""


@pytest.mark.slow
def test_eight_devices_make_the_same_step_as_one():
  environment = os.environ | {
    "XLA_FLAGS": "--xla_force_host_platform_device_count=8",
    "JAX_PLATFORMS": "cpu",
  }
  found = subprocess.run(
    [sys.executable, "-c", EIGHT],
    cwd=ROOT,
    env=environment,
    capture_output=True,
    text=True,
    timeout=300,
  )
  assert found.returncode == 0, found.stderr[-3000:]
  assert found.stdout.strip().endswith("equal")
