"""Probes of frozen features: how much of the labels they hold.

On plain NumPy arrays: training features `[N, D]` with labels `[N]` in
`0 .. C - 1`, and test features `[M, D]`. Each probe returns scores `[M, C]`,
the highest of which is its answer. Probes do not check their arguments:
`check_labelled` does, and `probe_table`, which runs them all, calls it.
"""

from jlejepa.probes.checks import (
  Labelled,
  accuracy,
  check_classes,
  check_labelled,
)
from jlejepa.probes.few_shot import draw_shots
from jlejepa.probes.linear import logistic, ridge
from jlejepa.probes.mlp import mlp_probe
from jlejepa.probes.nearest import knn, neighbours
from jlejepa.probes.pixels import raw_pixels
from jlejepa.probes.rank import rank_me
from jlejepa.probes.table import (
  PROBES,
  format_table,
  probe_table,
  quick_probe,
)

__all__ = [
  "PROBES",
  "Labelled",
  "accuracy",
  "check_classes",
  "check_labelled",
  "draw_shots",
  "format_table",
  "knn",
  "logistic",
  "mlp_probe",
  "neighbours",
  "probe_table",
  "quick_probe",
  "rank_me",
  "raw_pixels",
  "ridge",
]
