"""Are plans made with bfloat16 products as good as those of float32?

    python -m benchmarks.plan_quality --workdir=RUN [--states=200] [--json=FILE]

Takes states of a trained agent's own episodes and plans from each one twice,
with the same random numbers, in float32 and in bfloat16. Both plans get the
return that the float32 model predicts for them; so does a second float32 plan
with other random numbers, to see how far two plans are apart anyway.
"""

import argparse
import json
from functools import partial

import jax
import numpy as np

from jlejepa.runtime.run_folder import hold_folder, read_config, resolve
from jplanet.evaluate import restore_agent
from jplanet.planning import bind_planner
from jplanet.replay import Replay
from jplanet.setup import build
from jplanet.setup_envs import EnvFactory
from jplanet.unroll import imagined_return, observe

CONTEXT = 10
DOTS = ("float32", "bfloat16")


def compare(workdir: str, states: int) -> dict[str, float]:
  """Returns the mean predicted returns and the paired differences."""
  path = resolve(workdir)
  config = read_config(path).copy_and_resolve_references()
  factory = EnvFactory(config)
  parts = {}
  for dot in DOTS:
    config.model.plan_dot = dot
    parts[dot] = build(config, factory.action_dim)
  planner, empty = bind_planner(config.planner, factory.action_dim)
  with hold_folder(path) as folder:
    state, counters = restore_agent(folder, parts["float32"], config)
    size = config.env.size
    replay = Replay(
      (size, size, 3),
      factory.action_dim,
      folder=folder.episodes,
      max_bytes=config.train.replay_bytes,
    )
    replay.load(counters.episodes)
  batch = replay.sample(np.random.default_rng(0), states, CONTEXT)
  params = state.acting_params
  exact = parts["float32"].model
  keys = jax.random.split(jax.random.key(0), (states, 3))
  latents = jax.jit(jax.vmap(partial(_filter, exact, params)))(
    batch.image, batch.action, keys[:, 0]
  )

  def predicted(actions, latent, model=exact):
    return imagined_return(model, params, latent, actions)

  def plan(latent, key, model):
    score = lambda actions, key: predicted(actions, latent, model)
    return planner(key, score, warm=empty).actions

  def returns(dot, which):
    model = parts[dot].model
    one = lambda latent, key: predicted(plan(latent, key, model), latent)
    return np.asarray(jax.jit(jax.vmap(one))(latents, keys[:, which]))

  base = returns("float32", 1)
  result = {"states": states, "predicted_return_float32": base.mean()}
  for name, other in (
    ("bfloat16", returns("bfloat16", 1)),
    ("float32, other random numbers", returns("float32", 2)),
  ):
    difference = other - base
    error = 1.96 * difference.std(ddof=1) / states**0.5
    result |= {
      f"{name}: difference": difference.mean(),
      f"{name}: 95% interval": error,
    }
  return {name: round(float(value), 4) for name, value in result.items()}


def _filter(model, params, images, actions, key):
  states = observe(model, params, images, actions, key)
  return jax.tree.map(lambda x: x[-1], states)


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--workdir", required=True, help="a trained run")
  parser.add_argument("--states", type=int, default=200)
  parser.add_argument("--json", help="append the numbers to this file")
  flags = parser.parse_args()
  result = compare(flags.workdir, flags.states)
  for name, value in result.items():
    print(f"{name}: {value}")
  if flags.json:
    with open(flags.json, "a") as file:
      print(json.dumps(result), file=file)


if __name__ == "__main__":
  main()
