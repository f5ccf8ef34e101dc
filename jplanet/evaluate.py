"""Evaluation of a trained agent: noise-free episodes, scores and pictures.

    python -m jplanet.evaluate --workdir=runs/cheetah [--episodes=10]

The seeds are none that training or its evaluations have used.
"""

import sys
from collections.abc import Sequence
from typing import Any

import jax

from jlejepa.runtime.checkpoint import Checkpoints
from jlejepa.runtime.errors import (
  exit_on_user_error,
  nonnegative_int,
  optional,
  positive_int,
  require,
)
from jlejepa.runtime.files import explain_disk_errors
from jlejepa.runtime.flags import parse_options
from jlejepa.runtime.progress import Progress
from jlejepa.runtime.run_folder import (
  RunFolder,
  hold_folder,
  read_config,
  resolve,
)
from jplanet import report
from jplanet.check import check_config
from jplanet.collect import collect, planned_policy
from jplanet.counters import Counters
from jplanet.learner import TrainState
from jplanet.replay import Episode
from jplanet.scores import summarize
from jplanet.setup import (
  REPORT,
  Parts,
  build,
  episode_seeds,
)
from jplanet.setup_envs import EnvFactory, EnvMaker, keep_renderer

AT_ONCE = 16


def evaluate(
  workdir: str,
  *,
  episodes: int = 10,
  env: EnvMaker | None = None,
  video: bool = True,
  seed: int | None = None,
  quiet: bool = False,
) -> dict[str, Any]:
  """Runs noise-free episodes with the newest checkpoint of a run.

  Writes their summary as `final` into the run's score files, and draws what a
  finished training run draws. The same call gives the same returns.

  Args:
    workdir: the run folder; no other process may be using it.
    episodes: how many for each task, all on different seeds.
    env: as for `jplanet.fit`, for a run on an environment of your own.
    video: whether to draw the pictures and videos.
    seed: another one takes other episodes; the run's own if None.
    quiet: print nothing but what went wrong.

  Returns:
    `scores`: by task, the summary of `jplanet.scores.summarize` and the
    `returns`; `pictures`: paths by what they show; and the run's counts
    (`episodes`, `decisions`, `env_steps`, `updates`, ...).

  Raises:
    UserError: there is no run or no checkpoint in the folder, it is in use, or
      an argument is out of range.
  """
  positive_int("episodes", episodes)
  optional(nonnegative_int)("seed", seed)
  path = resolve(workdir)
  config = keep_renderer(read_config(path), path)
  check_config(config)
  factory = EnvFactory(config, env)
  parts = build(config, factory.action_dim)
  seed = config.seed if seed is None else seed
  act_key, picture_key = jax.random.split(jax.random.key(seed))
  with explain_disk_errors(path), hold_folder(path) as folder:
    state, counters = restore_agent(folder, parts)
    values, shown = run_episodes(
      factory,
      parts,
      state.acting_params,
      act_key,
      seed=seed,
      episodes=episodes,
      workers=config.env.workers,
      quiet=quiet,
    )
    returns = {
      task: values[i :: len(factory.tasks)]
      for i, task in enumerate(factory.tasks)
    }
    report.write_final_scores(
      folder,
      counters,
      returns,
      seed=config.seed,
      renderer=factory.renderer,
    )
    pictures = {}
    if video:
      pictures = report.write_pictures(
        folder, parts.model, state.acting_params, shown, picture_key
      )
  scores = {
    task: summarize(scored) | {"returns": scored}
    for task, scored in returns.items()
  }
  result = counters.numbers() | {"scores": scores, "pictures": pictures}
  if not quiet:
    print(report.describe_evaluation(result))
  return result


def run_episodes(
  factory: EnvFactory,
  parts: Parts,
  params: Any,
  key: jax.Array,
  *,
  seed: int,
  episodes: int,
  workers: int = 0,
  quiet: bool = True,
) -> tuple[list[float], list[Episode]]:
  """Runs noise-free episodes, up to `AT_ONCE` side by side.

  Every group has the same size, so that the agent compiles once; the last one
  may run episodes that nobody asked for, which are left out.

  Args:
    factory: makes the environments.
    parts: the run's.
    params: the weights to act with.
    key: for the agent; consumed.
    seed: of the episodes.
    episodes: for each task.
    workers: processes for the environments; 0 keeps them in this one.
    quiet: print no progress.

  Returns:
    The returns of `episodes` for each task, the tasks taking turns, and the
    first few episodes themselves.
  """
  tasks = len(factory.tasks)
  rounds = max(1, min(episodes, AT_ONCE // tasks))
  wanted, count = episodes * tasks, rounds * tasks
  envs = factory.group(count, workers=workers)
  progress = Progress(wanted, quiet=quiet, unit="episode")
  returns, shown = [], []
  try:
    while len(returns) < wanted:
      progress.update(len(returns))
      seeds = episode_seeds(seed, REPORT, len(returns), count)
      policy = planned_policy(
        parts.batched_act, parts.agent, params, key, seeds, 0.0
      )
      group = collect(envs, seeds, policy)
      returns += [float(e.reward.sum()) for e in group]
      # All of them together would fill the memory.
      shown = shown or group[:wanted]
    if envs.physics_errors:
      print(
        f"{envs.physics_errors} of {len(returns)} episodes were cut short by a"
        " diverging simulation: their returns count as they are",
        file=sys.stderr,
      )
  finally:
    envs.close()
    progress.close()
  return returns[:wanted], shown


def restore_agent(
  folder: RunFolder, parts: Parts
) -> tuple[TrainState, Counters]:
  """Restores the newest checkpoint of a run.

  Raises:
    UserError: there is none.
  """
  template = jax.eval_shape(parts.init, jax.random.key(0))
  restored = Checkpoints(folder.checkpoints).restore(template)
  require(
    restored is not None and not restored[2].get("untrained"),
    f"{folder.path} holds no checkpoint yet: train there for longer first",
  )
  _, state, extra = restored
  return state, Counters(**extra["counters"])


@exit_on_user_error()
def run(argv: Sequence[str] | None = None) -> None:
  """Runs the command `python -m jplanet.evaluate`."""
  options = parse_options(
    argv,
    options={"workdir": str, "episodes": 10, "video": True, "seed": None},
    prog="jplanet-evaluate",
  )
  evaluate(
    options.workdir,
    episodes=options.episodes,
    video=options.video,
    seed=options.seed,
  )


if __name__ == "__main__":
  run()
