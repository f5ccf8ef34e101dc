"""What a run has done so far; the part of a checkpoint that is no array."""

from typing import Any, NamedTuple

import numpy as np


class Counters(NamedTuple):
  """Counts over the whole run, all tasks together.

  Attributes:
    episodes: collected, seed episodes included; also the replay's cursor.
    decisions: actions chosen by the agent or at random.
    env_steps: control steps of the simulator, decisions times action repeat.
    updates: gradient steps, skipped ones included.
    skipped_total: those skipped because the gradient was not finite.
    evaluations: done so far.
    physics_errors: episodes that a diverging simulation cut short.
    diverged: those of them that were collected last, one after the other.
    eval_physics_errors: episodes of evaluations cut short in that way; their
      returns count as they are.
    worker_restarts: worker processes replaced because they died or hung.
    damaged_episodes: collected ones that the replay lacks, since their files
      were damaged or missing when a process took up the run.
    minutes: wall-clock minutes, over all processes of the run.
    scores: per task, a list of evaluations: dicts with `env_steps`,
      `episodes`, `minutes` and `returns`.
  """

  episodes: int = 0
  decisions: int = 0
  env_steps: int = 0
  updates: int = 0
  skipped_total: int = 0
  evaluations: int = 0
  physics_errors: int = 0
  diverged: int = 0
  eval_physics_errors: int = 0
  worker_restarts: int = 0
  damaged_episodes: int = 0
  minutes: float = 0.0
  scores: dict[str, list[dict[str, Any]]] = {}  # noqa: RUF012 never mutated

  def add_episodes(
    self, lengths: list[int], action_repeats: list[int]
  ) -> "Counters":
    """Counts episodes of `lengths` decisions, the tasks taking turns."""
    repeats = np.resize(action_repeats, len(lengths))
    return self._replace(
      episodes=self.episodes + len(lengths),
      decisions=self.decisions + sum(lengths),
      env_steps=self.env_steps + int(np.dot(lengths, repeats)),
    )

  def add_faults(self, diverged: int, restarts: int, count: int) -> "Counters":
    """Counts what went wrong in a round of `count` training episodes."""
    in_a_row = self.diverged + diverged if diverged >= count else 0
    return self._replace(
      physics_errors=self.physics_errors + diverged,
      diverged=in_a_row,
      worker_restarts=self.worker_restarts + restarts,
    )

  def add_scores(self, tasks: list[str], returns: list[float]) -> "Counters":
    """Notes an evaluation whose episodes took turns among the tasks."""
    scores = {task: list(self.scores.get(task, [])) for task in tasks}
    for i, task in enumerate(tasks):
      scores[task].append(
        dict(
          env_steps=self.env_steps // len(tasks),
          episodes=self.episodes // len(tasks),
          minutes=self.minutes,
          returns=list(returns[i :: len(tasks)]),
        )
      )
    return self._replace(scores=scores)

  def numbers(self) -> dict[str, float]:
    """Returns the counts without the scores."""
    return {k: v for k, v in self._asdict().items() if k != "scores"}
