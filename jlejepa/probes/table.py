"""One table of all probes over several sets of features."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from jlejepa.objective import effective_rank
from jlejepa.probes.checks import Labelled, accuracy, check_labelled
from jlejepa.probes.few_shot import draw_shots
from jlejepa.probes.linear import logistic, ridge, spread
from jlejepa.probes.mlp import mlp_probe
from jlejepa.probes.nearest import knn
from jlejepa.probes.rank import rank_me

Features = tuple[np.ndarray, np.ndarray]

PROBES: dict[str, Callable[..., np.ndarray]] = {
  "linear": ridge,
  "logistic": logistic,
  "knn": knn,
  "knn_weighted": lambda *args: knn(*args, weights="softmax"),
  # By distance instead of angle: lengths count too.
  "knn_distance": lambda *args: knn(
    *args, metric="euclidean", weights="inverse"
  ),
  "mlp": mlp_probe,
}
QUICK = ("linear", "knn")
SHOTS = (1, 2, 5, 10, "all")
# Too few samples to choose by: one value for every set of features.
_FEW_SHOT_WD = 1.0


def quick_probe(train_x, train_y, test_x, test_y) -> dict[str, float]:
  """Returns the accuracy of the ridge and the nearest-neighbour probe.

  Args:
    train_x: `[N, D]`.
    train_y: labels `[N]` from 0.
    test_x: `[M, D]`.
    test_y: labels `[M]`.

  Returns:
    `linear` and `knn`, in `[0, 1]`.

  Raises:
    ValueError: as `jlejepa.probes.check_labelled`.
  """
  data = check_labelled(train_x, train_y, test_x, test_y)
  return _probe(data, QUICK)


def probe_table(
  feature_sets: Mapping[str, Features],
  labels: Features,
  *,
  probes: Iterable[str] = QUICK,
  shots: Sequence[int | str] = SHOTS,
  draws: int = 3,
  seed: int = 0,
  ranks: bool = False,
) -> dict[str, Any]:
  """Runs every probe on every set of features, few-shot on the same draws.

  Few-shot are ridge with a fixed weight decay, on features scaled by the whole
  training set (which needs no labels), and softmax-weighted nearest neighbours
  with as many voices as shots; `"all"` is the full `linear` and
  `knn_weighted`.

  Args:
    feature_sets: by name, features of training `[N, D]` and test `[M, D]`
      images; each has its own `D`.
    labels: of training `[N]` and test `[M]`, from 0.
    probes: some of `jlejepa.probes.PROBES`.
    shots: labels per class, and `"all"`; empty for none.
    draws: of each number of shots.
    seed: of the draws.
    ranks: whether to compute `rank_me` (an eigendecomposition) and
      `jlejepa.effective_rank` of the training features.

  Returns:
    What JSON carries: `train`, `test`, `classes`, `chance` (`random`, and
    `majority`, which always names the commonest training class), `draws`, and
    `rows`: by name, `dims`; the accuracy of each probe; `few_shot`, by
    probe (`linear`, `knn`) and shots, `mean`, `std` (over draws) and `draws`;
    `rank_me` and `effective_rank`.

  Raises:
    ValueError: as `jlejepa.probes.check_labelled`, led by the name of the set;
      for an unknown probe, or shots or draws below 1.
  """
  probes = tuple(probes)
  unknown = [name for name in probes if name not in PROBES]
  if unknown:
    raise ValueError(f"no probe {unknown[0]!r}: there are {', '.join(PROBES)}")
  numbers = [count for count in shots if count != "all"]
  if any(not isinstance(n, int) or n < 1 for n in numbers) or draws < 1:
    raise ValueError(
      "shots must be integers of at least 1 or 'all' and draws at least 1, got "
      f"{list(shots)} and {draws}"
    )
  checked = {}
  for name, (train_x, test_x) in feature_sets.items():
    try:
      checked[name] = check_labelled(train_x, labels[0], test_x, labels[1])
    except ValueError as error:
      raise ValueError(f"{name}: {error}") from error
  if not checked:
    raise ValueError("no features to probe")
  rows = {}
  for name, data in checked.items():
    row = {"dims": data.train_x.shape[1]} | _probe(data, probes)
    if shots:
      row["few_shot"] = _few_shot(data, shots, draws, seed, row)
    if ranks:
      row["rank_me"] = rank_me(data.train_x)
      row["effective_rank"] = float(effective_rank(data.train_x))
    rows[name] = row
  counts = np.bincount(data.train_y)
  return {
    "train": len(data.train_y),
    "test": len(data.test_y),
    "classes": data.num_classes,
    "chance": {
      "random": 1 / data.num_classes,
      "majority": float(np.mean(data.test_y == np.argmax(counts))),
    },
    "draws": draws,
    "rows": rows,
  }


def _probe(data: Labelled, probes: Iterable[str]) -> dict[str, float]:
  return {
    name: accuracy(PROBES[name](*data[:3]), data.test_y) for name in probes
  }


def _few_shot(
  data: Labelled,
  shots: Sequence[int | str],
  draws: int,
  seed: int,
  row: Mapping[str, float],
) -> dict[str, dict[str, Any]]:
  scale = spread(data.train_x)
  table = {"linear": {}, "knn": {}}
  for count in shots:
    if count == "all":
      full = [("linear", "linear"), ("knn", "knn_weighted")]
      for kind, name in full:
        if name not in row:
          row = row | _probe(data, [name])
        table[kind]["all"] = _spread_of([row[name]])
      continue
    scores = {"linear": [], "knn": []}
    for chosen in draw_shots(data.train_y, count, draws=draws, seed=seed):
      few = (data.train_x[chosen], data.train_y[chosen], data.test_x)
      votes = {
        "linear": ridge(*few, wd=_FEW_SHOT_WD, scale=scale),
        "knn": knn(*few, k=min(count, 20), weights="softmax"),
      }
      for kind, vote in votes.items():
        scores[kind].append(accuracy(vote, data.test_y))
    for kind, values in scores.items():
      table[kind][str(count)] = _spread_of(values)
  return table


def _spread_of(scores: Sequence[float]) -> dict[str, Any]:
  several = len(scores) > 1
  return {
    "mean": float(np.mean(scores)),
    "std": float(np.std(scores, ddof=1)) if several else 0.0,
    "draws": list(scores),
  }


def format_table(table: Mapping[str, Any]) -> str:
  """Writes the result of `probe_table` as text, accuracies in per cent."""
  rows = table["rows"]
  first = next(iter(rows.values()))
  probes = [name for name in PROBES if name in first]
  ranks = [name for name in ("rank_me", "effective_rank") if name in first]
  header = ["all labels, %", "dims", *probes, *ranks]
  lines = [[name.replace("_", " ") for name in header]]
  for name, row in rows.items():
    cells = [f"{100 * row[probe]:.1f}" for probe in probes]
    cells += [f"{row[rank]:.1f}" for rank in ranks]
    lines.append([name, str(row["dims"]), *cells])
  text = _align(lines)
  shots = [
    (kind, count)
    for kind, counts in first.get("few_shot", {}).items()
    for count in counts
    if count != "all"
  ]
  if shots:
    lines = [["labels per class, %", *(f"{kind} {n}" for kind, n in shots)]]
    for name, row in rows.items():
      found = [row["few_shot"][kind][count] for kind, count in shots]
      cells = [f"{100 * x['mean']:.1f}±{100 * x['std']:.1f}" for x in found]
      lines.append([name, *cells])
    text += ["", *_align(lines)]
  chance = table["chance"]
  text.append(
    f"chance {100 * chance['random']:.1f}, commonest class "
    f"{100 * chance['majority']:.1f}; {table['train']} training and "
    f"{table['test']} test images, {table['classes']} classes"
    + (f"; few labels: mean of {table['draws']} draws" if shots else "")
  )
  return "\n".join(text)


def _align(lines: Sequence[Sequence[str]]) -> list[str]:
  widths = [max(map(len, column)) for column in zip(*lines)]
  return [
    "  ".join(
      cell.rjust(width) if i else cell.ljust(width)
      for i, (cell, width) in enumerate(zip(line, widths))
    )
    for line in lines
  ]
