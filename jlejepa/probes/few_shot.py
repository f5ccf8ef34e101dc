"""A few labels per class, drawn so that feature sets can be compared."""

import numpy as np


def draw_shots(
  labels: np.ndarray, shots: int, *, draws: int = 3, seed: int = 0
) -> list[np.ndarray]:
  """Draws samples of each class.

  The draws depend on nothing but labels and seed, and a draw of more shots
  holds the one of fewer: every feature set and every number of shots is
  compared on the same samples.

  Args:
    labels: integers `[N]`.
    shots: how many of each class; all of a class that has fewer.
    draws: how many draws.
    seed: of the draws.

  Returns:
    For each draw sorted indices into the labels.
  """
  found = []
  for draw in range(draws):
    rng = np.random.default_rng([seed, draw])
    order = rng.permutation(len(labels))
    chosen = [
      order[labels[order] == label][:shots] for label in np.unique(labels)
    ]
    found.append(np.sort(np.concatenate(chosen)))
  return found
