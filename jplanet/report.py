"""What a run shows a person: scores, a learning curve, and videos."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jlejepa.runtime.drawing import draw
from jlejepa.runtime.run_folder import RunFolder
from jplanet.counters import Counters
from jplanet.replay import Episode
from jplanet.scores import read_scores, write_scores
from jplanet.types import Batch, Params, WorldModel

FRAMES = 50
SEQUENCES = 4
CONTEXT = 5  # frames before the imagined ones, if an episode has so many
# A decision lasts action_repeat steps of at least a hundredth of a second; ten
# pictures a second are close to real time for most tasks.
FPS = 12


def write_all_scores(
  folder: RunFolder, counters: Counters, *, seed: int, renderer: str
) -> None:
  """Writes `scores.json`, and `scores_<task>.json` if there are several."""
  for task, evaluations in counters.scores.items():
    column = lambda key, rows=evaluations: [row[key] for row in rows]
    write_scores(
      scores_path(folder, list(counters.scores), task),
      task=task,
      seed=seed,
      renderer=renderer,
      env_steps=column("env_steps"),
      episodes=column("episodes"),
      minutes=column("minutes"),
      returns=column("returns"),
      hardware=jax.devices()[0].device_kind,
    )


def scores_path(folder: RunFolder, tasks: list[str], task: str) -> Path:
  """Returns the score file of one of a run's tasks."""
  if len(tasks) == 1:
    return folder.scores
  return folder.scores.with_stem(f"scores_{task}")


def write_final_scores(
  folder: RunFolder,
  counters: Counters,
  returns: Mapping[str, list[float]],
  *,
  seed: int,
  renderer: str,
) -> None:
  """Puts returns by task beside the evaluations that the files hold."""
  tasks = list(returns)
  for task, final in returns.items():
    path = scores_path(folder, tasks, task)
    try:
      old = read_scores(path)
      columns = dict(
        env_steps=old["xs_env_steps"],
        episodes=old["xs_episodes"],
        minutes=old["xs_minutes"],
        returns=old["returns"],
      )
    except (FileNotFoundError, ValueError):
      # None so far, or a damaged one: this evaluation is the only one.
      columns = dict(
        env_steps=[counters.env_steps // len(tasks)],
        episodes=[counters.episodes // len(tasks)],
        minutes=[counters.minutes],
        returns=[final],
      )
    write_scores(
      path,
      task=task,
      seed=seed,
      renderer=renderer,
      final=final,
      hardware=jax.devices()[0].device_kind,
      **columns,
    )


def score_files(folder: RunFolder) -> list[Path]:
  """Returns the score files of a run, one per task."""
  several = sorted(folder.path.glob("scores_*.json"))
  return several or [folder.scores]


def write_pictures(
  folder: RunFolder,
  model: WorldModel,
  params: Params,
  episodes: list[Episode],
  key: jax.Array,
) -> dict[str, str]:
  """Draws the curve, an episode, and what the model imagines.

  A picture that cannot be drawn, because a library is missing, is named on
  stderr and left out: the run's numbers are safe without it.

  Args:
    folder: of the run.
    model: the world model; without a decoder there is no imagination to show.
    params: its weights.
    episodes: noise-free ones; the first is shown.
    key: for the model's samples; consumed.

  Returns:
    Paths by what they show.
  """
  # Imported late: a run without the `video` extra trains all the same.
  from jplanet import open_loop, plots, video

  made = {}

  def add(name: str, function, path: Path, *args, **kwargs) -> None:
    made.update(draw(name, function, path, *args, **kwargs))

  if all(path.exists() for path in score_files(folder)):
    add(
      "learning curve",
      lambda path: plots.learning_curve(score_files(folder), path),
      folder.plots / "learning_curve.png",
    )
  add(
    "episode",
    video.write_video,
    folder.videos / "episode.mp4",
    episodes[0].image,
    fps=FPS,
    scale=max(1, 256 // episodes[0].image.shape[1]),
  )
  if model.decode is not None:
    shortest = min(len(e.image) for e in episodes[:SEQUENCES])
    context = min(CONTEXT, shortest - 1)
    true, imagined = imagined_sequences(
      model, params, episodes, key, context=context
    )
    add(
      "imagined against true (video)",
      open_loop.open_loop_video,
      folder.videos / "open_loop.mp4",
      true,
      imagined,
      fps=FPS,
    )
    add(
      "imagined against true",
      open_loop.open_loop_figure,
      folder.plots / "open_loop.png",
      true,
      imagined,
      context=context,
    )
  return made


def imagined_sequences(
  model: WorldModel,
  params: Params,
  episodes: list[Episode],
  key: jax.Array,
  *,
  context: int = CONTEXT,
) -> tuple[np.ndarray, np.ndarray]:
  """Returns true and open-loop predicted frames `[N, T, S, S, 3]` in [0, 1].

  The sequences start at different times of the episodes, so that they show
  more than how an episode begins.

  Args:
    model: a world model with a decoder.
    params: its weights.
    episodes: of which the first `SEQUENCES` are shown.
    key: for filtering and the prior; consumed.
    context: frames that the model sees before it imagines.
  """
  from jplanet.open_loop import open_loop

  chosen = episodes[:SEQUENCES]
  length = min(FRAMES, *(len(e.image) for e in chosen))
  starts = [
    i * (len(e.image) - length) // max(1, len(chosen) - 1)
    for i, e in enumerate(chosen)
  ]
  cut = [
    Batch(*(x[start : start + length] for x in episode))
    for episode, start in zip(chosen, starts)
  ]
  batch = jax.tree.map(lambda *x: jnp.stack(x), *cut)
  keys = jax.random.split(key, len(chosen))
  predict = jax.jit(
    jax.vmap(
      lambda sequence, k: open_loop(model, params, sequence, k, context=context)
    )
  )
  return jax.tree.map(np.asarray, predict(batch, keys))


def describe(row: Mapping[str, Any], counters: Counters) -> str:
  """Returns the few words of a progress line."""
  words = [f"{counters.updates} updates", f"{counters.env_steps} env steps"]
  if "train_return" in row:
    words.append(f"return {row['train_return']:.0f}")
  last = [rows[-1]["returns"] for rows in counters.scores.values()]
  if last:
    words.append(f"evaluation {np.mean(last):.0f}")
  return ", ".join(words)


def summary(result: Mapping[str, Any]) -> str:
  """Returns what a finished command prints."""
  lines = [
    f"{result['episodes']} episodes, {result['env_steps']} environment steps,"
    f" {result['updates']} updates, {result['minutes']:.1f} minutes"
  ]
  if "eval_return" in result:
    lines.append(
      f"noise-free return: mean {result['eval_return']:.1f}, standard"
      f" deviation {result['eval_return_std']:.1f}"
    )
  lines += [
    f"{name}: {path}" for name, path in result.get("pictures", {}).items()
  ]
  return "\n".join(lines)


def describe_evaluation(result: Mapping[str, Any]) -> str:
  """Returns what the evaluation command prints."""
  lines = [
    f"after {result['episodes']} episodes, {result['env_steps']} environment"
    f" steps, {result['updates']} updates"
  ]
  for task, score in result["scores"].items():
    lines.append(
      f"{task}: mean {score['mean']:.1f}, median {score['median']:.1f},"
      f" interquartile mean {score['iqm']:.1f} (95% interval"
      f" {score['iqm_low']:.1f} to {score['iqm_high']:.1f}) of"
      f" {score['episodes']} episodes"
    )
  lines += [f"{name}: {path}" for name, path in result["pictures"].items()]
  return "\n".join(lines)
