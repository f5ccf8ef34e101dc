"""One update of PlaNet's world model at the paper's sizes.

    python -m benchmarks.update [--kaixhin=PATH] [--rounds=N] [--json=FILE]

Batches of 50 sequences of 50 pictures of 64x64, 6 actions, depth 32, with and
without latent overshooting over 50 steps; and a batch of 16 x 32. Both sides
have the peer's reward head (two layers of 200). Ours quantises and dithers the
bytes within the update; the peer is spared that and given its floats.
"""

import functools
from collections.abc import Callable, Sequence

from benchmarks import device, harness
from benchmarks.harness import Case
from benchmarks.worker import Step

CONFIG = (
  "model.reward_layers=2",
  "model.reward_units=200",
)


def count_flop(batch: int, steps: int, overshooting: bool) -> float:
  """Multiplications and additions of all matrix products, forward and back."""
  encoder = 31**2 * 32 * 48 + 14**2 * 64 * 512 + 6**2 * 128 * 1024
  encoder += 2**2 * 256 * 2048
  decoder = 230 * 1024 + 1024 * 128 * 25 + 25 * 128 * 64 * 25
  decoder += 13**2 * 64 * 32 * 36 + 30**2 * 32 * 3 * 36
  prior = 36 * 200 + 6 * 200 * 200 + 200 * 200 + 200 * 60
  posterior = 1224 * 200 + 200 * 60
  reward = 230 * 200 + 200 * 200 + 200
  each = encoder + decoder + prior + posterior + reward
  total = 3.0 * batch * steps * each
  # The gradient does not go on to the pictures.
  total -= batch * steps * 31**2 * 32 * 48
  if overshooting:
    total += 3.0 * batch * (steps * (steps - 1) // 2) * prior
  return 2 * total


def make(
  batch: int = 50,
  steps: int = 50,
  overshooting: bool = False,
  overrides: Sequence[str] = CONFIG,
  arg: str = "planet.py:cheetah_run",
) -> tuple[Callable, tuple]:
  """`jplanet`'s train step, and a state, random bytes and a key for it."""
  import jax
  import numpy as np

  from jlejepa.runtime.config import load_config
  from jplanet.learner import init_state, make_train_step
  from jplanet.setup import build
  from jplanet.types import Batch

  arg += ",overshooting" * overshooting
  chunk = [f"loss.overshooting_distance={steps}"] * overshooting
  config = load_config(arg, [*overrides, *chunk])
  parts = build(config, action_dim=6)
  ema = config.optimizer.ema
  state = jax.jit(
    lambda key: init_state(key, parts.model, parts.optimizer, ema=ema)
  )(jax.random.key(0))
  rng = np.random.default_rng(0)
  size = config.env.size
  data = jax.device_put(
    Batch(
      image=rng.integers(0, 256, (batch, steps, size, size, 3), np.uint8),
      action=rng.uniform(-1, 1, (batch, steps, 6)).astype(np.float32),
      reward=rng.uniform(0, 1, (batch, steps)).astype(np.float32),
    )
  )
  step = make_train_step(parts.model, parts.optimizer, ema=ema)
  return step, (state, data, jax.random.key(1))


def ours(
  batch: int = 50, steps: int = 50, overshooting: bool = False, **options
) -> Step:
  """One call of the step; the options are those of `make`."""
  import jax

  step, (state, data, key) = make(batch, steps, overshooting, **options)
  step = jax.jit(step, donate_argnums=0)

  def run():
    nonlocal state
    state, metrics = step(state, data, key)
    return jax.block_until_ready((state, metrics))

  return Step(
    run=run,
    flop=(
      count_flop(batch, steps, overshooting)
      if data.image.shape[2] == 64
      else 0.0
    ),
    memory=device.jax_memory(),
  )


def kaixhin(batch: int = 50, steps: int = 50, **options) -> Step:
  """The peer's update; the options are those of `kaixhin_step.make`."""
  from benchmarks import kaixhin_step  # needs torch

  return Step(
    run=kaixhin_step.make(batch, steps, **options),
    flop=count_flop(batch, steps, options.get("overshooting", False)),
    memory=device.torch_memory(),
  )


def cases(
  batch: int, steps: int, overshooting: bool, path: str | None, gpu: bool
) -> list[Case]:
  """The rows of one table."""
  same = {"batch": batch, "steps": steps, "overshooting": overshooting}
  ours = functools.partial(Case, build="benchmarks.update:ours")
  rows = [ours("jplanet, float32", options=same)]
  if gpu:
    # 16.2 s on two CPU cores at commit b1e1856, where float32 took 7.5.
    half = {"overrides": [*CONFIG, "model.image_dtype=bfloat16"]}
    rows.append(ours("jplanet, convolutions in bfloat16", options=same | half))
  if path is None:
    return rows
  peer = functools.partial(
    Case, build="benchmarks.update:kaixhin", peer=True, path=path
  )
  rows.append(peer("Kaixhin/PlaNet as shipped", options=same))
  # Plain modules, for what cannot take scripted ones.
  eager = {"PYTORCH_JIT": "0"}
  fast = same | {"tf32": gpu}
  half = fast | {"autocast": True}
  rows.append(
    peer("Kaixhin/PlaNet, autocast bfloat16", options=half, env=eager)
  )
  if gpu:
    graph = {"graph": True}
    rows += [
      peer("Kaixhin/PlaNet, TF32", options=fast),
      peer(
        "Kaixhin/PlaNet, TF32, one CUDA graph", options=fast | graph, env=eager
      ),
      peer(
        "Kaixhin/PlaNet, autocast bfloat16, one CUDA graph",
        options=half | graph,
        env=eager,
      ),
    ]
  return rows


TABLES = {
  "PlaNet update, 50 x 50": (50, 50, False, 1.0),
  "PlaNet update, overshooting 50, 50 x 50": (50, 50, True, 0.7),
  "PlaNet update, 16 x 32": (16, 32, False, None),
}


def main() -> None:
  parser = harness.parser(__doc__.splitlines()[0])
  parser.add_argument("--kaixhin", help="a checkout of Kaixhin/PlaNet")
  flags = parser.parse_args()
  if not flags.kaixhin:
    harness.missing("--kaixhin=PATH of github.com/Kaixhin/PlaNet, and torch")
  gpu = device.on_gpu()
  for title, (batch, steps, overshooting, target) in TABLES.items():
    rows = cases(batch, steps, overshooting, flags.kaixhin, gpu)
    harness.table(title, rows, flags, target=target)


if __name__ == "__main__":
  main()
