"""Choose among runs without labels: the training loss against accuracy.

    python -m jlejepa.selection runs/* --out=selection.png

The loss of LeJEPA ranks the runs of a sweep (paper section 6.1): `C(alpha)` is
the rank correlation of `loss / lambda^alpha` with the accuracy of a probe, its
sign turned so that 1 is perfect. `alpha` makes runs of different `lambda`
comparable; the paper finds 0.4 or so.
"""

import argparse
import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy.stats import rankdata

from jlejepa.runtime.errors import UserError, exit_on_user_error, require
from jlejepa.runtime.files import os_reason
from jlejepa.runtime.metrics import read_metrics
from jlejepa.runtime.run_folder import read_config, resolve
from jlejepa.setup import lambda_of

ALPHAS = tuple(np.linspace(0, 1, 21).round(2).tolist())
# Of a run's rows: their mean is its final loss.
_LAST = 0.1


class Run(NamedTuple):
  """A finished run.

  Attributes:
    name: of its folder.
    source: what it learnt from, `config.data.source`.
    lam: the trade-off that its loss was computed with, above 0.
    loss: over the last tenth of its rows, and so are the two below.
    prediction: the prediction term.
    sigreg: the SIGReg term.
    accuracy: of a probe of the frozen embedding, in [0, 1].
  """

  name: str
  source: str
  lam: float
  loss: float
  prediction: float
  sigreg: float
  accuracy: float


class Selection(NamedTuple):
  """How well the loss ranks runs.

  Attributes:
    alphas: `[A]`.
    correlation: `C(alpha)`, `[A]`, from -1 to 1.
    low: the 2.5th percentile over resampled runs, `[A]`.
    high: the 97.5th.
  """

  alphas: np.ndarray
  correlation: np.ndarray
  low: np.ndarray
  high: np.ndarray

  @property
  def best(self) -> int:
    """The index of the alpha with the highest correlation.

    Few runs give ties, mostly of neighbours: then the middle one.
    """
    top = self.correlation.max() - 1e-12
    ties = np.flatnonzero(self.correlation >= top)
    return int(ties[len(ties) // 2])


def loss_correlation(
  losses: Sequence[float],
  lams: Sequence[float],
  accuracies: Sequence[float],
  *,
  alphas: Sequence[float] = ALPHAS,
  resamples: int = 1000,
  seed: int = 0,
) -> Selection:
  """Computes `C(alpha) = -Spearman(loss / lambda^alpha, accuracy)`.

  The interval is the percentile bootstrap over runs, the same resamples for
  every alpha. That of the best alpha is a little too high, for it was chosen on
  the same runs.

  Args:
    losses: `[R]`, final training losses.
    lams: `[R]`, above 0.
    accuracies: `[R]`.
    alphas: to compute it for.
    resamples: of the bootstrap.
    seed: of the bootstrap.

  Raises:
    ValueError: for unequal lengths, fewer than three runs, equal accuracies, or
      values that are not finite or, for lambda, not above 0.
  """
  arrays = [np.asarray(x, float) for x in (losses, lams, accuracies)]
  losses, lams, accuracies = arrays
  if len({x.shape for x in arrays}) > 1 or losses.ndim != 1:
    raise ValueError(
      "losses, lambdas and accuracies must be equally many, got shapes "
      f"{', '.join(str(list(x.shape)) for x in arrays)}"
    )
  count = len(losses)
  if count < 3:
    raise ValueError(f"{count} runs cannot be ranked: give three or more")
  if not all(np.isfinite(x).all() for x in arrays) or (lams <= 0).any():
    raise ValueError(
      "losses, lambdas and accuracies must be finite and lambda above 0"
    )
  if np.ptp(accuracies) == 0:
    raise ValueError(f"all {count} runs have the accuracy {accuracies[0]:g}")
  alphas = np.asarray(alphas, float)
  scaled = losses / lams ** alphas[:, None]
  chosen = np.random.default_rng(seed).integers(count, size=(resamples, count))
  again = -_spearman(scaled[:, chosen], accuracies[chosen])
  # A resample of one run alone has no correlation.
  low, high = np.nanpercentile(again, [2.5, 97.5], axis=1)
  return Selection(alphas, -_spearman(scaled, accuracies), low, high)


def _spearman(a: np.ndarray, b: np.ndarray) -> np.ndarray:
  """Gives the rank correlation along the last axis; nan where one is equal."""
  ranks = [rankdata(x, axis=-1) for x in (a, b)]
  a, b = (x - x.mean(axis=-1, keepdims=True) for x in ranks)
  size = np.sqrt(np.sum(a**2, axis=-1) * np.sum(b**2, axis=-1))
  with np.errstate(invalid="ignore"):
    return np.sum(a * b, axis=-1) / size


def read_run(workdir: str | os.PathLike, probe: str = "linear") -> Run:
  """Reads what selection needs from the folder of a finished run.

  Args:
    workdir: the run folder.
    probe: the column of the run's probe table that is its accuracy.

  Raises:
    UserError: for a folder without a run, an unfinished or damaged one, or one
      that cannot be compared.
  """
  path = resolve(workdir)
  config = read_config(path)
  accuracy = _accuracy(path / "scores.json", probe)
  rows = read_metrics(path)
  require(rows, f"{path} has no metrics: it stopped before its first row")
  rows = rows[len(rows) - max(1, round(_LAST * len(rows))) :]
  try:
    supervised, source = config.train.supervised, str(config.data.source)
    lam = lambda_of(config)
    terms = [
      float(np.mean([row[name] for row in rows]))
      for name in ("loss", "prediction", "sigreg")
    ]
  except (AttributeError, KeyError, TypeError, ValueError) as error:
    raise UserError(
      f"{path} is damaged or no run of jlejepa.train: {error}"
    ) from error
  require(not supervised, f"{path} has learnt from labels, not from the loss")
  require(lam > 0, f"{path} has lambda 0: loss / lambda^alpha does not exist")
  require(
    np.isfinite(terms).all(), f"{path} ended with a loss that is not finite"
  )
  return Run(path.name, source, lam, *terms, accuracy)


def _accuracy(path: Path, probe: str) -> float:
  try:
    row = json.loads(path.read_text(encoding="utf-8"))["rows"]["embedding"]
  except FileNotFoundError:
    raise UserError(
      f"{path.parent} is unfinished or has no labels: {path.name} is missing"
    ) from None
  except OSError as error:
    raise UserError(f"{path} cannot be read: {os_reason(error)}") from error
  except (ValueError, KeyError, TypeError) as error:
    raise UserError(f"{path} is damaged: {error!r}") from error
  known = [name for name, x in row.items() if isinstance(x, float)]
  require(
    probe in known, f"{path} has no probe {probe!r}: it has {', '.join(known)}"
  )
  return row[probe]


def read_runs(
  workdirs: Iterable[str | os.PathLike], probe: str = "linear"
) -> tuple[list[Run], list[str]]:
  """Reads every run that can be read.

  Args:
    workdirs: run folders.
    probe: as in `read_run`.

  Returns:
    The runs, and for each of the others one line that says why not.
  """
  runs, left_out = [], []
  for workdir in workdirs:
    try:
      runs.append(read_run(workdir, probe))
    except UserError as error:
      left_out.append(str(error))
  return runs, left_out


def describe(
  runs: Sequence[Run], left_out: Sequence[str], selection: Selection
) -> str:
  """Returns what the command prints."""
  order = sorted(runs, key=lambda run: -run.accuracy)
  width = max(len(run.name) for run in runs)
  lines = [f"left out: {reason}" for reason in left_out]
  lines.append(f"{'run'.ljust(width)}  lambda     loss  accuracy, %")
  lines += [
    f"{run.name.ljust(width)}  {run.lam:6.3g}  {run.loss:7.4f}"
    f"  {100 * run.accuracy:11.1f}"
    for run in order
  ]
  # With one lambda alpha does nothing.
  several = len({run.lam for run in runs}) > 1
  for i in dict.fromkeys([0, selection.best] if several else [0]):
    lines.append(
      f"C({selection.alphas[i]:g}) = {selection.correlation[i]:.2f}"
      f" (95% interval {selection.low[i]:.2f} to {selection.high[i]:.2f})"
    )
  return "\n".join(lines)


@exit_on_user_error()
def run(argv: Sequence[str] | None = None) -> None:
  """Runs the command `python -m jlejepa.selection`."""
  parser = argparse.ArgumentParser(
    prog="python -m jlejepa.selection",
    description="Compares the training loss of runs with their accuracy.",
  )
  parser.add_argument("runs", nargs="+", metavar="RUN", help="a run folder")
  parser.add_argument("--out", default="selection.png", help="the picture")
  parser.add_argument(
    "--probe", default="linear", help="whose accuracy, such as linear or knn"
  )
  options = parser.parse_args(argv)
  runs, left_out = read_runs(options.runs, options.probe)
  require(
    len(runs) >= 3,
    f"{len(runs)} of {len(options.runs)} folders hold a finished run, three"
    f" are needed{'; ' if left_out else ''}{'; '.join(left_out[:2])}",
  )
  sources = sorted({found.source for found in runs})
  require(
    len(sources) == 1,
    f"the runs have learnt from {', '.join(sources)}: compare runs of one data"
    " set",
  )
  try:
    selection = loss_correlation(
      *(
        [getattr(r, name) for r in runs] for name in ("loss", "lam", "accuracy")
      )
    )
  except ValueError as error:
    raise UserError(str(error)) from error
  print(describe(runs, left_out, selection))
  # Imported late: the picture needs this module.
  from jlejepa.selection_picture import selection_figure

  try:
    print(selection_figure(options.out, runs, selection))
  except ImportError as error:
    raise UserError(f"no picture: {error}; pip install matplotlib") from error
  except (OSError, ValueError) as error:
    raise UserError(f"no picture at {options.out}: {error}") from error


if __name__ == "__main__":
  run()
