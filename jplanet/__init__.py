"""PlaNet in JAX: a world model learned from pixels, and planning inside it.

Names are imported when they are first used, so that an environment worker,
which imports `jplanet.envs` in a process of its own, never loads jax.
"""

import importlib

_HOME = {
  "Batch": "jplanet.types",
  "Plan": "jplanet.types",
  "WorldModel": "jplanet.types",
  "cem": "jplanet.planners",
  "fit": "jplanet.train",
  "gradient_plan": "jplanet.planners",
  "icem": "jplanet.planners",
  "imagine": "jplanet.unroll",
  "load_config": "jlejepa.runtime.config",
  "make_env": "jplanet.envs",
  "make_planet": "jplanet.world_model",
  "mppi": "jplanet.planners",
  "observe": "jplanet.unroll",
  "random_shooting": "jplanet.planners",
}

__all__ = sorted(_HOME)


def __getattr__(name: str):
  if name not in _HOME:
    raise AttributeError(f"module 'jplanet' has no attribute {name!r}")
  return getattr(importlib.import_module(_HOME[name]), name)


def __dir__():
  return __all__
