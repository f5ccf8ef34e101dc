"""Pixel environments as pure JAX functions: tasks that compile.

`jplanet.jax_envs.dm_adapter.DmEnv` makes one of them a `dm_env.Environment`.
"""

from jplanet.jax_envs.base import JaxEnv
from jplanet.jax_envs.pendulum import pendulum
from jplanet.jax_envs.point import point
from jplanet.jax_envs.rollout import episode

JAX_ENVS = {"pendulum": pendulum, "point": point}

__all__ = ["JAX_ENVS", "JaxEnv", "episode", "make_jax_env"]


def make_jax_env(name: str, size: int = 64) -> JaxEnv:
  """Builds an environment by name.

  Args:
    name: a key of `JAX_ENVS`.
    size: image side in pixels, at least 8.

  Raises:
    ValueError: the name is unknown or the size is too small.
  """
  if name not in JAX_ENVS:
    raise ValueError(
      f"unknown environment {name!r}, expected one of {sorted(JAX_ENVS)}"
    )
  if size != int(size) or size < 8:
    raise ValueError(f"size must be an integer of at least 8, got {size!r}")
  return JAX_ENVS[name](size)
