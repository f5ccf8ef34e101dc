"""Environments that give pixels, on the host and without jax."""

from jplanet.envs.adapters import check_env, from_gymnasium
from jplanet.envs.suite import make_env
from jplanet.envs.tasks import TASKS
from jplanet.envs.vector import Lockstep
from jplanet.envs.workers import WorkerError, WorkerPool

__all__ = [
  "TASKS",
  "Lockstep",
  "WorkerError",
  "WorkerPool",
  "check_env",
  "from_gymnasium",
  "make_env",
]
