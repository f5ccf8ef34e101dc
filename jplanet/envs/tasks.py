"""Names of tasks, and the action repeat that belongs to each."""

import difflib
from typing import NamedTuple


class Task(NamedTuple):
  """A task of the DeepMind control suite as PlaNet plays it.

  Attributes:
    domain: the suite's domain.
    task: the suite's task within the domain.
    action_repeat: control steps per decision, in steps of 1000 an episode.
  """

  domain: str
  task: str
  action_repeat: int


# The six tasks of the paper, the two that its first release added, and their
# action repeats (PlaNet, section 5 and scripts/tasks.py). The repeat is the
# first thing to tune on a new task.
TASKS = {
  "cartpole_balance": Task("cartpole", "balance", 8),
  "cartpole_swingup": Task("cartpole", "swingup", 8),
  "reacher_easy": Task("reacher", "easy", 4),
  "cheetah_run": Task("cheetah", "run", 4),
  "finger_spin": Task("finger", "spin", 2),
  "cup_catch": Task("ball_in_cup", "catch", 4),
  "walker_walk": Task("walker", "walk", 2),
  "humanoid_walk": Task("humanoid", "walk", 2),
}

_ALIASES = {"ball_in_cup_catch": "cup_catch"}
_OTHER_REPEAT = 2


def find_task(name: str, suite_tasks: tuple[tuple[str, str], ...]) -> Task:
  """Looks a task up by name.

  Args:
    name: a key of `TASKS`, or `<domain>_<task>` for any task of the suite (the
      longest domain that fits wins); those get an action repeat of 2.
    suite_tasks: the suite's `(domain, task)` pairs.

  Raises:
    ValueError: the suite has no such task; the message names close matches.
  """
  name = _ALIASES.get(name, name)
  if name in TASKS:
    return TASKS[name]
  fits = [pair for pair in suite_tasks if "_".join(pair) == name]
  if fits:
    domain, task = max(fits, key=lambda pair: len(pair[0]))
    return Task(domain, task, _OTHER_REPEAT)
  known = [*TASKS, *("_".join(pair) for pair in suite_tasks)]
  close = difflib.get_close_matches(str(name), known, n=3)
  hint = f"did you mean {' or '.join(close)}?" if close else ""
  raise ValueError(
    f"unknown task {name!r}: {hint or 'expected one of ' + ', '.join(TASKS)}"
  )
