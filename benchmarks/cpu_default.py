"""PlaNet's CPU default: one update, a whole cycle by phase, a whole run.

    python -m benchmarks.cpu_default [--rounds=N] [--minutes=N] [--only=WORD]

The update stands against the same sizes with overlapping convolutions in place
of patches. The cycle is one episode of every environment and the updates after
it, one after the other, in this process. The run is `jplanet.train` itself.
"""

import functools
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any
from unittest import mock

from benchmarks import harness, update
from benchmarks.harness import Case
from benchmarks.worker import Step
from jlejepa.runtime.allocator import SETTINGS, restart_with_tuned_allocator

UPDATE, CYCLE, RUN = "CPU default, one update", "cycle", "run"


def patches(**options) -> Step:
  """The default as it is, of one update of random bytes."""
  sizes = dict(batch=16, steps=32) | options
  return update.ours(arg="planet.py:cpu", overrides=(), **sizes)


def overlapping(products: bool, **options) -> Step:
  """The same with three overlapping convolutions and their mirror image."""
  import flax.linen as nn

  from jplanet import convolutions, image_networks, networks, world_model

  down = functools.partial(convolutions.conv, products=products)
  up = functools.partial(convolutions.conv_transpose, products=products)

  class Encoder(nn.Module):
    """32 -> 15 -> 6 -> 2."""

    depth: int

    @nn.compact
    def __call__(self, x):
      for i in range(3):
        x = nn.relu(image_networks.Conv(down, self.depth * 2**i, 4)(x))
      return x.reshape(*x.shape[:-3], -1)

  class Decoder(nn.Module):
    """1 -> 5 -> 14 -> 32."""

    depth: int

    @nn.compact
    def __call__(self, x):
      x = networks.Dense(16 * self.depth)(x)[..., None, None, :]
      x = nn.relu(image_networks.Conv(up, 2 * self.depth, 5)(x))
      x = nn.relu(image_networks.Conv(up, self.depth, 6)(x))
      return image_networks.Conv(up, 3, 6)(x)

  same = lambda x: x
  make = lambda kind, size, depth, dtype: image_networks.ImageNetworks(
    Encoder(depth), Decoder(depth), same, same
  )
  with mock.patch.object(world_model, "make_image_networks", make):
    return patches(**options)


def update_cases() -> list[Case]:
  """The rows of the update; the convolutions of XLA are what to beat."""
  build = "benchmarks.cpu_default:"
  other = functools.partial(Case, build=build + "overlapping", peer=True)
  return [
    Case("jplanet, patches", build + "patches"),
    other("overlapping, lax", options={"products": False}),
    other("overlapping, as matrix products", options={"products": True}),
  ]


class Clock:
  """Adds up the seconds of calls, by name."""

  def __init__(self):
    self.seconds = {}

  def timed(self, name, function):
    """Returns `function`, its time counted under `name`."""

    def call(*args, **kwargs):
      start = time.perf_counter()
      try:
        return function(*args, **kwargs)
      finally:
        spent = time.perf_counter() - start
        self.seconds[name] = self.seconds.get(name, 0) + spent

    return call


def cycle(overrides: list[str]) -> tuple[float, dict[str, float]]:
  """Plays a planned episode everywhere and updates; seconds, and by phase."""
  import jax
  import numpy as np

  from jlejepa.runtime.config import load_config
  from jplanet.collect import Policy, collect, planned_policy, random_policy
  from jplanet.envs import Lockstep, make_env
  from jplanet.learner import init_state, make_train_step
  from jplanet.replay import Replay
  from jplanet.setup import build

  config = load_config("planet.py:cpu", overrides)
  options = dict(size=config.env.size, renderer=config.env.renderer)
  options["supersample"] = config.env.supersample
  count = config.env.num_envs
  members = [make_env(config.task, **options) for _ in range(count)]
  envs, clock = Lockstep(members), Clock()
  parts = build(config, envs.action_dim)
  step = jax.jit(
    make_train_step(parts.model, parts.optimizer, ema=config.optimizer.ema),
    donate_argnums=0,
  )
  key, seeds = jax.random.key(0), list(range(count))
  replay = Replay(envs.image_shape, envs.action_dim)
  for episode in collect(envs, seeds, random_policy(seeds, envs.action_dim)):
    replay.add(episode)
  state = init_state(
    key, parts.model, parts.optimizer, ema=config.optimizer.ema
  )
  sample = lambda: replay.sample(
    np.random.default_rng(0), config.train.batch, config.train.chunk
  )
  state, _ = step(state, sample(), key)
  plan = lambda params: planned_policy(
    parts.batched_act, parts.agent, params, key, seeds, 0.3
  )
  policy = plan(state.acting_params)
  policy.act(policy.init(), envs.reset(seeds), 0)  # compiles
  for env in members:
    env._draw.render = clock.timed("render", env._draw.render)
    env.physics.step = clock.timed("simulate", env.physics.step)

  start = time.perf_counter()
  policy = plan(state.acting_params)
  policy = Policy(policy.init, clock.timed("plan (compiled)", policy.act))
  for episode in collect(envs, seeds, policy):
    clock.timed("store", replay.add)(episode)
  wait = lambda *args: jax.block_until_ready(step(*args))
  decisions = sum(len(e.reward) - 1 for e in replay.episodes) // 2
  for _ in range(round(config.train.updates_per_decision * decisions)):
    batch = clock.timed("sample", sample)()
    state, _ = clock.timed("update (compiled)", wait)(state, batch, key)
  total = time.perf_counter() - start
  for env in members:
    env.close()
  clock.seconds["the rest"] = total - sum(clock.seconds.values())
  return total, clock.seconds


def run(minutes: float, overrides: list[str]) -> dict[str, float]:
  """Trains for some minutes; rates per minute once everything is compiled."""
  with tempfile.TemporaryDirectory() as folder:
    command = [sys.executable, "-m", "jplanet.train", f"--workdir={folder}/run"]
    command += ["--config=planet.py:cpu", "--config.evaluate.every=0"]
    command += [f"--config.runtime.max_minutes={minutes}"]
    command += [f"--config.{override}" for override in overrides]
    # The command makes its own settings, where it finds none.
    env = {k: v for k, v in os.environ.items() if k not in SETTINGS}
    subprocess.run(
      command, cwd=harness.ROOT, env=env, check=True, stdout=sys.stderr
    )
    text = Path(folder, "run", "metrics.jsonl").read_text()
  rows = [json.loads(line) for line in text.splitlines()]
  return rates_of(rows, minutes)


def rates_of(rows: list[dict[str, Any]], minutes: float) -> dict[str, float]:
  """Environment steps and updates per minute, from the rows of a run's metrics.

  Exits where it has fewer than two rounds with updates: the first compiles.
  """
  rows = [row for row in rows if row["updates"]]
  if len(rows) < 2:
    sys.exit(
      f"--minutes={minutes} was enough for {len(rows)} rounds with updates;"
      " rates need two: give more minutes"
    )
  first, last = rows[0], rows[-1]
  spent = last["minutes"] - first["minutes"]
  names = "env_steps", "updates"
  return {name: (last[name] - first[name]) / spent for name in names}


def main() -> None:
  parser = harness.parser(__doc__.splitlines()[0])
  parser.add_argument("--minutes", type=float, default=3.0)
  parser.add_argument("--override", action="append", default=[])
  flags = parser.parse_args()
  restart_with_tuned_allocator()
  harness.table(UPDATE, update_cases(), flags, target=0.4)
  if flags.only in CYCLE:
    total, seconds = cycle(flags.override)
    print(f"\n### One cycle of the CPU default: {total:.1f} s\n")
    for name, spent in sorted(seconds.items(), key=lambda item: -item[1]):
      print(f"{name:20} {spent:7.2f} s {spent / total:6.1%}")
  if flags.only in RUN:
    rates = run(flags.minutes, flags.override)
    print(
      f"\nThe whole CPU default: {rates['env_steps']:.0f} environment steps"
      f" and {rates['updates']:.0f} updates per minute (targets 40000, 1000)"
    )


if __name__ == "__main__":
  main()
