"""Univariate tests of normality, written as losses.

Each takes samples `[..., N, M]` of any floating type and returns float32
`[..., M]`: large when a column is unlike N(0, 1), finite with a finite gradient
even where the column has collapsed. Pass one to `jlejepa.sliced`, or to
`jlejepa.sigreg` as `test`. `shapiro_wilk` and `jarque_bera` ignore location and
scale, `watson` much of location: add `vcreg` to them when training.
"""

from jlejepa.ecf import epps_pulley
from jlejepa.univariate.distribution import (
  anderson_darling,
  cramer_von_mises,
  nll,
  watson,
)
from jlejepa.univariate.moment import (
  extended_jarque_bera,
  jarque_bera,
  moments,
  vcreg,
)
from jlejepa.univariate.order import entropy, shapiro_wilk

__all__ = [
  "anderson_darling",
  "cramer_von_mises",
  "entropy",
  "epps_pulley",
  "extended_jarque_bera",
  "jarque_bera",
  "moments",
  "nll",
  "shapiro_wilk",
  "vcreg",
  "watson",
]
