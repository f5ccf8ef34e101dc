"""One decision's search by the cross-entropy method, at the paper's sizes.

    python -m benchmarks.plan [--kaixhin=PATH] [--rounds=N] [--json=FILE]

Horizon 12, 10 iterations, 1000 candidates, 100 elites, belief 200, state 30,
6 actions and the peer's reward head (two layers of 200): 120,000 latent steps.
"""

import functools
from collections.abc import Callable

from benchmarks import device, harness
from benchmarks.harness import Case
from benchmarks.worker import Step

LOOPS = "--xla_gpu_enable_command_buffer=+WHILE"
TARGETS = {1: 0.55, 8: 0.40}


def count_flop(envs: int, candidates: int, horizon: int) -> float:
  """Multiplications and additions of the matrix products of ten iterations."""
  cell = 36 * 200 + 6 * 200 * 200 + 200 * 200 + 200 * 60
  reward = 230 * 200 + 200 * 200 + 200
  return 2.0 * (cell + reward) * envs * candidates * horizon * 10


def make(
  envs: int = 1,
  dot: str = "float32",
  candidates: int = 1000,
  horizon: int = 12,
  elites: int = 100,
) -> tuple[Callable, tuple]:
  """`jplanet`'s planner and the score of `jplanet/agent.py`, and arguments."""
  import jax

  from jlejepa.runtime.config import load_config
  from jplanet.collect import for_each
  from jplanet.planning import bind_planner
  from jplanet.unroll import imagined_return
  from jplanet.world_model import make_planet

  config = load_config(
    "planet.py:cheetah_run",
    [
      f"model.plan_dot={dot}",
      "model.reward_layers=2",
      "model.reward_units=200",
      f"planner.horizon={horizon}",
      f"planner.cem.candidates={candidates}",
      f"planner.cem.elites={elites}",
    ],
  )
  model = make_planet(config, action_dim=6)
  planner, empty = bind_planner(config.planner, 6)
  params = jax.jit(model.init)(jax.random.key(0))

  def plan(params, latent, key):
    def score(actions, key):
      return imagined_return(model, params, latent, actions, key)

    return planner(key, score, warm=empty).actions[0]

  def search(params, latents, keys):
    return for_each(functools.partial(plan, params), candidates)(latents, keys)

  keys = jax.random.split(jax.random.key(1), envs)
  latents = jax.vmap(lambda _: model.initial())(keys)
  return search, (params, latents, keys)


def ours(
  envs: int = 1,
  dot: str = "float32",
  candidates: int = 1000,
  horizon: int = 12,
  **options,
) -> Step:
  """Plans with `jplanet`; the options are those of `make`."""
  import jax

  search, args = make(envs, dot, candidates, horizon, **options)
  search = jax.jit(search)
  return Step(
    run=lambda: search(*args).block_until_ready(),
    flop=count_flop(envs, candidates, horizon),
    memory=device.jax_memory(),
  )


def kaixhin(
  envs: int = 1, tf32: bool = False, compile: bool = False, graph: bool = False
) -> Step:
  """Plans with the peer's own classes.

  Args:
    envs: beliefs planned for at once.
    tf32: let float32 products use TensorFloat-32, as JAX does by default.
    compile: `torch.compile` the transition and reward models.
    graph: capture the whole search as one CUDA graph.
  """
  import torch
  from models import RewardModel, TransitionModel
  from planner import MPCPlanner

  if tf32:
    torch.set_float32_matmul_precision("high")
  where = device.torch_device()
  transition = TransitionModel(200, 30, 6, 200, 1024).to(where)
  reward = RewardModel(200, 30, 200).to(where)
  if compile:
    transition, reward = torch.compile(transition), torch.compile(reward)
  search = MPCPlanner(6, 12, 10, 1000, 100, transition, reward, -1, 1)
  belief = torch.zeros(envs, 200, device=where)
  state = torch.zeros(envs, 30, device=where)

  def once():
    with torch.no_grad():
      return search(belief, state)

  def run():
    work()
    device.torch_wait()

  work = once
  if graph:
    work = device.captured(once)
  for _ in range(3):  # torch.jit optimises a module in its first calls
    run()
  return Step(
    run=run, flop=count_flop(envs, 1000, 12), memory=device.torch_memory()
  )


def cases(envs: int, path: str | None, gpu: bool, compiled: bool) -> list[Case]:
  """The rows for `envs` environments; the bfloat16 form comes first."""
  ours = functools.partial(Case, build="benchmarks.plan:ours")
  rows = [
    ours(
      "jplanet, plan_dot=bfloat16",
      options={"envs": envs, "dot": "bfloat16"},
      dtype="bfloat16",
    ),
    ours("jplanet, float32", options={"envs": envs}),
  ]
  if gpu:
    rows.append(
      ours(
        "jplanet, plan_dot=bfloat16, loops in CUDA graphs",
        options={"envs": envs, "dot": "bfloat16"},
        dtype="bfloat16",
        env={"XLA_FLAGS": LOOPS},
      )
    )
  if path is None:
    return rows
  peer = functools.partial(
    Case, build="benchmarks.plan:kaixhin", peer=True, path=path
  )
  # Plain modules, for what cannot take scripted ones.
  eager = {"PYTORCH_JIT": "0"}
  rows.append(peer("Kaixhin/PlaNet as shipped", options={"envs": envs}))
  if gpu:
    fast = {"envs": envs, "tf32": True}
    rows += [
      peer("Kaixhin/PlaNet, TF32", options=fast),
      peer(
        "Kaixhin/PlaNet, TF32, one CUDA graph",
        options=fast | {"graph": True},
        env=eager,
      ),
    ]
  if compiled:
    rows.append(
      peer(
        "Kaixhin/PlaNet, torch.compile",
        options={"envs": envs, "tf32": gpu, "compile": True},
        env=eager,
      )
    )
  return rows


def main() -> None:
  parser = harness.parser(__doc__.splitlines()[0])
  parser.add_argument("--kaixhin", help="a checkout of Kaixhin/PlaNet")
  parser.add_argument(
    "--compile", action="store_true", help="torch.compile of the peer too"
  )
  flags = parser.parse_args()
  if not flags.kaixhin:
    harness.missing("--kaixhin=PATH of github.com/Kaixhin/PlaNet, and torch")
  for envs, target in TARGETS.items():
    title = f"CEM plan, {envs} environment{'s' * (envs > 1)}"
    rows = cases(envs, flags.kaixhin, device.on_gpu(), flags.compile)
    harness.table(title, rows, flags, target=target)


if __name__ == "__main__":
  main()
