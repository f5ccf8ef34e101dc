"""What other planners get from the model of a finished run.

    python results/planners.py RUN "planner.horizon=20" "planner.name=cem"

Every argument after the run folder is a list of overrides, and one row: the
mean of 16 noise-free episodes, on the same seeds in every row.
"""

import sys

import jax
import numpy as np

from jlejepa.runtime.config import load_config
from jlejepa.runtime.run_folder import hold_folder, read_config, resolve
from jplanet.evaluate import restore_agent, run_episodes
from jplanet.setup import build
from jplanet.setup_envs import EnvFactory, keep_renderer

EPISODES, SEED = 16, 77


def returns(workdir: str, overrides: list[str]) -> np.ndarray:
  """Plays with the newest checkpoint of a run and another planner."""
  path = resolve(workdir)
  config = keep_renderer(read_config(path), path)
  # Only the planner is taken from here; the overrides are checked.
  config.planner = load_config("planet.py:cpu", overrides).planner
  factory = EnvFactory(config)
  parts = build(config, factory.action_dim)
  with hold_folder(path) as folder:
    state, _ = restore_agent(folder, parts, config)
    values, _ = run_episodes(
      factory,
      parts,
      state.acting_params,
      jax.random.key(5),
      seed=SEED,
      episodes=EPISODES,
      workers=0,
      quiet=True,
    )
  return np.asarray(values)


def main(workdir: str, *rows: str) -> None:
  print("| planner | return |\n|---|---|")
  for row in rows:
    values = returns(workdir, row.split())
    print(f"| {row} | {values.mean():.0f} +- {values.std():.0f} |", flush=True)


if __name__ == "__main__":
  main(*sys.argv[1:])
