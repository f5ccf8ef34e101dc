"""Scores: how to summarise returns, where to keep them, what the paper got."""

import json
import os
import pathlib
import platform
from collections.abc import Mapping, Sequence
from importlib import metadata

import numpy as np

from jlejepa.runtime.files import atomic_write_json

PAPER_METHODS = ("PlaNet", "D4PG", "A3C", "CEM + true simulator")
_TABLE = {
  "cartpole_swingup": (821, 862, 558, 850),
  "reacher_easy": (832, 967, 285, 964),
  "cheetah_run": (662, 524, 214, 656),
  "finger_spin": (700, 985, 129, 825),
  "cup_catch": (930, 980, 105, 993),
  "walker_walk": (951, 968, 311, 994),
}
# Table 1 of the paper (v5): final mean return over 5 seeds x 10 episodes.
# PlaNet sees pixels for 1,000 episodes, D4PG pixels and A3C proprioception for
# 100,000; CEM plans in the true simulator and learns nothing.
PAPER_TABLE_1: dict[str, dict[str, float]] = {
  task: dict(zip(PAPER_METHODS, map(float, row)))
  for task, row in _TABLE.items()
}
PAPER_TABLE_1["ball_in_cup_catch"] = PAPER_TABLE_1["cup_catch"]

_KEYS = {
  "task", "method", "seed", "renderer", "xs_env_steps", "xs_episodes",
  "xs_minutes", "ys", "returns", "final", "versions", "hardware",
}  # fmt: skip
_PACKAGES = ("jplanet", "jax", "flax", "optax", "numpy", "dm_control", "mujoco")


def iqm(returns) -> np.ndarray:
  """Computes the interquartile mean of `[..., n]` over the last axis.

  The lowest and the highest floor(n / 4) values are left out, so fewer than
  four values give their plain mean.
  """
  ordered = np.sort(np.asarray(returns, np.float64), axis=-1)
  cut = ordered.shape[-1] // 4
  return ordered[..., cut : ordered.shape[-1] - cut].mean(-1)


def summarize(
  returns, *, seed: int = 0, resamples: int = 2000
) -> dict[str, float]:
  """Summarises the returns of some episodes.

  Args:
    returns: `[episodes]` of one run, or `[runs, episodes]`.
    seed: of the bootstrap; the same seed gives the same interval.
    resamples: number of bootstrap resamples.

  Returns:
    mean, median, iqm (interquartile mean), iqm_low and iqm_high (its 95%
    percentile bootstrap interval), min, max, std (of the population) and
    episodes (their number over all runs). The bootstrap is stratified: it
    draws episodes anew within every run and keeps every run. So the interval
    speaks about these runs, and not about training with other seeds.

  Raises:
    ValueError: when there is no return, one is not finite, or the array is
      not one- or two-dimensional.
  """
  x = _finite(returns, "returns")
  if x.ndim not in (1, 2) or not x.size:
    raise ValueError(
      "returns must be a non-empty [episodes] or [runs, episodes] array, got "
      f"shape {x.shape}; pass one return per episode"
    )
  runs = np.atleast_2d(x)
  pick = np.random.default_rng(seed).integers(
    runs.shape[1], size=(resamples, *runs.shape)
  )
  drawn = np.take_along_axis(runs[None], pick, axis=2)
  low, high = np.percentile(iqm(drawn.reshape(resamples, -1)), [2.5, 97.5])
  return {
    "mean": float(x.mean()),
    "median": float(np.median(x)),
    "iqm": float(iqm(x.ravel())),
    "iqm_low": float(low),
    "iqm_high": float(high),
    "min": float(x.min()),
    "max": float(x.max()),
    "std": float(x.std()),
    "episodes": int(x.size),
  }


def write_scores(
  path: str | os.PathLike,
  *,
  task: str,
  seed: int,
  renderer: str,
  env_steps: Sequence[int],
  episodes: Sequence[int],
  minutes: Sequence[float],
  returns: Sequence[Sequence[float]],
  final: Sequence[float] | None = None,
  method: str = "PlaNet",
  hardware: str = "",
  versions: Mapping[str, str] | None = None,
) -> pathlib.Path:
  """Writes the scores of one run, whole or not at all.

  Args:
    path: a run folder, or the file itself when the name ends in `.json`.
    task: name of the task, `cartpole_swingup`.
    seed: of the run.
    renderer: what drew the pixels, `gl` or `ray`: scores differ with it.
    env_steps: training steps of the environment (action repeats counted) at
      each evaluation.
    episodes: training episodes at each evaluation.
    minutes: wall-clock training time at each evaluation, resumes included.
    returns: for each evaluation, the return of each noise-free episode.
    final: returns of a longer last evaluation; the last of `returns` if None.
    method: what the plots call the agent.
    hardware: the device, `jax.devices()[0].device_kind`.
    versions: of packages; those installed here by default.

  Returns:
    The path of the file.

  Raises:
    ValueError: when nothing was evaluated, the lists differ in length or a
      number is not finite.
  """
  path = _file(path)
  axes = {
    "xs_env_steps": [int(x) for x in env_steps],
    "xs_episodes": [int(x) for x in episodes],
    "xs_minutes": [float(x) for x in minutes],
  }
  lengths = {name: len(xs) for name, xs in axes.items()}
  if not len(returns) or set(lengths.values()) != {len(returns)}:
    raise ValueError(
      "scores need one entry of each x axis per evaluation and at least one "
      f"evaluation, got {len(returns)} evaluations and {lengths}"
    )
  _finite(axes["xs_minutes"], "minutes")
  returns = [_finite(r, "returns").tolist() for r in returns]
  scores = {
    "task": str(task),
    "method": str(method),
    "seed": int(seed),
    "renderer": str(renderer),
    **axes,
    "ys": [summarize(r, resamples=1)["mean"] for r in returns],
    "returns": returns,
    "final": summarize(returns[-1] if final is None else final),
    "versions": dict(_versions() if versions is None else versions),
    "hardware": str(hardware),
  }
  path.parent.mkdir(parents=True, exist_ok=True)
  atomic_write_json(path, scores)
  return path


def read_scores(path: str | os.PathLike) -> dict:
  """Reads what `write_scores` wrote.

  Args:
    path: a run folder, or the file itself when the name ends in `.json`.

  Raises:
    FileNotFoundError: when there is no such file.
    ValueError: when the file is not a scores file.
  """
  path = _file(path)
  if not path.is_file():
    raise FileNotFoundError(
      f"no scores at {path}: expected a run folder whose run has evaluated at "
      "least once"
    )
  try:
    scores = json.loads(path.read_text())
  except ValueError as error:
    raise ValueError(
      f"{path} is not valid JSON ({error}); run the evaluation again"
    ) from error
  missing = _KEYS - (set(scores) if isinstance(scores, dict) else set())
  if missing:
    raise ValueError(
      f"{path} is not a scores file: it lacks {', '.join(sorted(missing))}"
    )
  return scores


def _file(path) -> pathlib.Path:
  path = pathlib.Path(path).expanduser()
  return path if path.suffix == ".json" else path / "scores.json"


def _finite(values, name: str) -> np.ndarray:
  try:
    x = np.asarray(values, np.float64)
  except (TypeError, ValueError) as error:
    raise ValueError(f"{name} must be numbers, got {values!r}") from error
  if not np.isfinite(x).all():
    raise ValueError(f"{name} must be finite, got {x.tolist()}")
  return x


def _versions() -> dict[str, str]:
  found = {"python": platform.python_version()}
  for name in _PACKAGES:
    try:
      found[name] = metadata.version(name)
    except metadata.PackageNotFoundError:
      continue  # An extra that is not installed, or a source checkout.
  return found
