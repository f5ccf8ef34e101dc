"""The command behind `python -m jplanet.diagnostics`: a run's world model.

It reports R^2 of every component of the simulator's state on episodes that the
heads have not seen, beside the same for the model as it was before training:
what that one reaches, any features would tell.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np

from jlejepa.runtime.drawing import draw
from jlejepa.runtime.errors import (
  exit_on_user_error,
  finite_nonnegative,
  nonnegative_int,
  optional,
  positive_int,
  require,
)
from jlejepa.runtime.files import atomic_write_json, explain_disk_errors
from jlejepa.runtime.flags import parse_options
from jlejepa.runtime.run_folder import hold_folder, read_config, resolve
from jplanet import diagnostics, diagnostics_report
from jplanet.check import check_config
from jplanet.diagnostics_data import Recorded, record_episodes
from jplanet.evaluate import restore_agent
from jplanet.setup import build
from jplanet.setup_envs import EnvFactory, EnvMaker, keep_renderer
from jplanet.types import Key, Params, WorldModel

HORIZONS = (1, 10, 30)
# Images before open loop begins, as in the paper's video predictions.
CONTEXT = 5


class Measured(NamedTuple):
  """What heads make of one model's features, on the second half of episodes.

  Attributes:
    r2: by component (`velocity[0]`) and column (`filtered`, `open_loop_10`);
      None for a component that is constant.
    entries: how many entries every R^2 is about, the same in all columns.
    curves: by component, the first of the episodes: `true`, `filtered` and
      `open_loop` (from `CONTEXT` images on), `[T]` each in standard units.
  """

  r2: dict[str, dict[str, float | None]]
  entries: int
  curves: dict[str, dict[str, np.ndarray]]


def diagnose(
  workdir: str,
  *,
  episodes: int = 16,
  noise: float = 0.3,
  env: EnvMaker | None = None,
  plot: bool = True,
  seed: int | None = None,
  quiet: bool = False,
) -> dict[str, Any]:
  """Measures how much of the simulator's state a run's features tell.

  Collects episodes with the newest checkpoint, fits heads on the first half
  and scores them on the rest. Writes `diagnostics.json` and a picture for each
  task into `plots/`. The same call gives the same numbers.

  Args:
    workdir: the run folder; no other process may be using it.
    episodes: how many for each task, 2 at least.
    noise: standard deviation of the exploration noise.
    env: as for `jplanet.fit`; it needs a `state()`.
    plot: whether to draw.
    seed: another one takes other episodes; the run's own if None.
    quiet: print nothing.

  Returns:
    What `diagnostics.json` holds, and `pictures`: paths by what they show.

  Raises:
    UserError: there is no run or no checkpoint in the folder, it is in use, an
      argument is out of range, the environment has no `state()`, or its
      episodes are too short.
  """
  positive_int("episodes", episodes)
  require(
    episodes > 1, "episodes must be 2 or more: half of them fit the heads"
  )
  finite_nonnegative("noise", noise)
  optional(nonnegative_int)("seed", seed)
  path = resolve(workdir)
  config = keep_renderer(read_config(path), path)
  check_config(config)
  factory = EnvFactory(config, env)
  parts = build(config, factory.action_dim)
  seed = config.seed if seed is None else seed
  act_key, init_key, measure_key = jax.random.split(jax.random.key(seed), 3)
  tasks, curves = {}, {}
  with explain_disk_errors(path), hold_folder(path) as folder:
    state, counters = restore_agent(folder, parts)
    trained = state.acting_params
    recorded = record_episodes(
      factory,
      parts,
      trained,
      act_key,
      seed=seed,
      episodes=episodes,
      noise=noise,
      quiet=quiet,
    )
    for task, data in recorded.items():
      untrained = jax.jit(parts.model.init)(init_key, data.image[data.valid])
      ours = measure(parts.model, trained, data, measure_key)
      control = measure(parts.model, untrained, data, measure_key)
      tasks[task] = {
        "entries": ours.entries,
        "trained": ours.r2,
        "untrained": control.r2,
      }
      curves[task] = ours.curves
    result = {
      "updates": counters.updates,
      "episodes": episodes,
      "noise": noise,
      "seed": seed,
      "renderer": factory.renderer,
      "tasks": tasks,
    }
    atomic_write_json(folder.path / "diagnostics.json", result)
    result["pictures"] = {}
    for task in tasks if plot else ():
      suffix = "" if len(tasks) == 1 else f"_{task}"
      result["pictures"] |= draw(
        f"states of {task}",
        diagnostics_report.draw,
        folder.plots / f"diagnostics{suffix}.png",
        task,
        curves[task],
        context=CONTEXT,
      )
  if not quiet:
    print(diagnostics_report.describe(result))
  return result


def measure(
  model: WorldModel, params: Params, data: Recorded, key: Key
) -> Measured:
  """Fits heads on the first half of episodes and scores them on the rest.

  Args:
    model: the world model.
    params: its weights.
    data: two episodes or more.
    key: for filtering and for the heads; consumed.

  Raises:
    UserError: no episode to be scored is long enough.
  """
  half = len(data.valid) // 2
  times = np.arange(data.valid.shape[1])
  reach = times[data.valid[half:].any(0)][-1] + 1 - CONTEXT
  horizons = tuple(h for h in HORIZONS if h <= reach)
  require(
    horizons,
    f"state diagnostics need episodes of {CONTEXT + HORIZONS[0]} entries or"
    f" more, and the longest has {reach + CONTEXT}",
  )
  roll_key, head_key = jax.random.split(key)
  keys = jax.random.split(roll_key, len(data.image))
  features = np.asarray(
    _roll(model, params, (data.image, data.action, keys), horizons)
  )
  seen = data.valid[:half]
  features = diagnostics.standardize(features, features[:half, 0][seen])
  truth = {
    name: diagnostics.standardize(x, x[:half][seen])
    for name, x in data.states.items()
  }
  heads, _ = jax.jit(diagnostics.fit_heads)(
    head_key,
    features[:half, 0][seen],
    {name: x[:half][seen] for name, x in truth.items()},
  )
  predicted = jax.jit(diagnostics.predict)(heads, features[half:])
  # One set of entries for all columns, so that they can be compared.
  scored = data.valid[half:] & (times >= CONTEXT - 1 + max(horizons))
  columns = ["filtered", *(f"open_loop_{h}" for h in horizons)]
  r2, curves = {}, {}
  for name, x in truth.items():
    guess = np.asarray(predicted[name])
    scores = np.stack(
      [
        diagnostics.r_squared(x[half:][scored], guess[:, j][scored])
        for j in range(len(columns))
      ]
    )
    for i in range(x.shape[-1]):
      component = f"{name}[{i}]"
      r2[component] = {
        column: None if np.isnan(score) else float(score)
        for column, score in zip(columns, scores[:, i])
      }
      first = data.valid[half]
      curves[component] = {
        "true": x[half, first, i],
        "filtered": guess[0, 0, first, i],
        "open_loop": guess[0, -1, first, i],
      }
  return Measured(r2=r2, entries=int(scored.sum()), curves=curves)


@partial(jax.jit, static_argnames=("model", "horizons"))
def _roll(model, params, sequences, horizons):
  return jax.lax.map(
    lambda sequence: diagnostics.rollout_features(
      model, params, *sequence, horizons=horizons, context=CONTEXT
    ),
    sequences,
  )


@exit_on_user_error()
def run(argv: Sequence[str] | None = None) -> None:
  """Runs the command `python -m jplanet.diagnostics`."""
  options = parse_options(
    argv,
    options={
      "workdir": str,
      "episodes": 16,
      "noise": 0.3,
      "plot": True,
      "seed": None,
    },
    prog="python -m jplanet.diagnostics",
  )
  diagnose(
    options.workdir,
    episodes=options.episodes,
    noise=options.noise,
    plot=options.plot,
    seed=options.seed,
  )
