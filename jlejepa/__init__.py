"""LeJEPA in JAX: self-supervised learning with SIGReg.

Names are imported on first use, so that `import jlejepa` costs nothing and
`jlejepa.runtime` stands without the statistics.
"""

import importlib

_MODULE_OF = {
  "effective_rank": "objective",
  "epps_pulley": "ecf",
  "epps_pulley_unbiased": "ecf",
  "fit": "train",
  "lejepa_loss": "objective",
  "load_config": "runtime.config",
  "orthogonal_directions": "directions",
  "prediction_loss": "objective",
  "scaled_lambda": "objective",
  "random_directions": "directions",
  "sigreg": "slicing",
  "sigreg_exact": "exact",
  "sigreg_unbiased": "slicing",
  "sliced": "slicing",
  "sobol_directions": "directions",
}
_SUBMODULES = (
  "data",
  "encoders",
  "multivariate",
  "probes",
  "runtime",
  "univariate",
  "views",
)

__all__ = sorted([*_MODULE_OF, *_SUBMODULES])


# No module may bear the name of a public function: importing it would bind the
# module over the function.
def __getattr__(name: str):
  if name in _SUBMODULES:
    return importlib.import_module(f"{__name__}.{name}")
  if name in _MODULE_OF:
    module = importlib.import_module(f"{__name__}.{_MODULE_OF[name]}")
    return getattr(module, name)
  raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
  return sorted({*globals(), *__all__})
