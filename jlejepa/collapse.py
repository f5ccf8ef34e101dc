"""Say in plain words when embeddings collapse, and when they recover."""

from collections.abc import Callable, Mapping
from typing import Any

# A standard Gaussian has a spread of 1 and an effective rank of K.
SMALLEST_SPREAD = 0.1
SMALLEST_RANK = 1.5


def describe_collapse(row: Mapping[str, float]) -> str:
  """Returns what is wrong with the embeddings of a row of metrics, or "".

  Args:
    row: with `spread` and `effective_rank`, as `lejepa_loss` returns them.
  """
  if row["spread"] < SMALLEST_SPREAD:
    return (
      "the embeddings of different images are almost the same (spread"
      f" {row['spread']:.2g}; a Gaussian's is 1)"
    )
  if row["effective_rank"] < SMALLEST_RANK:
    return (
      "the embeddings lie on a line (effective rank"
      f" {row['effective_rank']:.1f})"
    )
  return ""


class CollapseWatch:
  """Reports a collapse once, and its end.

  Args:
    lam: the run's trade-off, for the advice.
    say: takes the line.
  """

  def __init__(self, lam: float, say: Callable[[str], Any]):
    self._lam, self._say = lam, say
    self.collapsed = False

  def look(self, row: Mapping[str, float], step: int) -> None:
    """Looks at a row of metrics; speaks when the state changes."""
    trouble = describe_collapse(row)
    if trouble and not self.collapsed:
      self._say(
        f"collapse at step {step}: {trouble}. The prediction loss alone is"
        " smallest there: give SIGReg more weight, config.loss.lam ="
        f" {self._lam:g} now, 0.01 to 0.2 as a rule"
      )
    if self.collapsed and not trouble:
      self._say(f"step {step}: the embeddings have spread out again")
    self.collapsed = bool(trouble)
