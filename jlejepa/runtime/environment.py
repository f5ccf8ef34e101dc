"""Describe the machine and the software of a run."""

import os
import platform
import socket
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import jax

from jlejepa.runtime.processor import processor_name, vector_sets

_PACKAGES = (
  "jplanet",
  "jax",
  "jaxlib",
  "libtpu",
  "flax",
  "optax",
  "orbax-checkpoint",
  "chex",
  "ml_collections",
  "numpy",
  "dm_control",
  "mujoco",
  "tensorflow-datasets",
  "grain",
)


def describe_environment() -> dict[str, Any]:
  """Returns what a reader needs to judge or repeat a run's numbers.

  Git commit (with `-dirty` after local changes; None outside a checkout),
  package versions, Python, devices and their kind, processors, host, command.
  Starts JAX's backend.
  """
  devices = jax.devices()
  return {
    "git": _git_commit(Path(__file__).parents[2]),
    "packages": {name: _version(name) for name in _PACKAGES if _version(name)},
    "python": platform.python_version(),
    "platform": platform.platform(),
    "device_kind": devices[0].device_kind,
    "device_count": len(devices),
    "process_count": jax.process_count(),
    "cpu_count": _cpu_count(),
    "processor": processor_name(),
    "vector_sets": vector_sets(),
    "xla_flags": os.environ.get("XLA_FLAGS", ""),
    "host": socket.gethostname(),
    "command": sys.argv,
  }


def changes(
  old: dict[str, Any], new: dict[str, Any], prefix: str = ""
) -> list[str]:
  """Returns `"key old -> new"` for each differing key of two nested dicts."""
  found = []
  for key in dict.fromkeys([*old, *new]):
    before, after = old.get(key), new.get(key)
    if isinstance(before, dict) and isinstance(after, dict):
      found += changes(before, after, f"{prefix}{key}.")
    elif key not in old:
      found.append(f"{prefix}{key} (absent) -> {after!r}")
    elif key not in new:
      found.append(f"{prefix}{key} {before!r} -> (absent)")
    elif before != after:
      found.append(f"{prefix}{key} {before!r} -> {after!r}")
  return found


def _version(name: str) -> str | None:
  try:
    return metadata.version(name)
  except metadata.PackageNotFoundError:
    return None


def _cpu_count() -> int:
  # In a container the affinity is what the process may use, not the machine's.
  if hasattr(os, "sched_getaffinity"):
    return len(os.sched_getaffinity(0))
  return os.cpu_count() or 1


def _git_commit(root: Path) -> str | None:
  if not (root / ".git").exists():
    return None
  command = ["git", "-C", str(root), "describe", "--always", "--dirty"]
  command += ["--abbrev=40", "--exclude=*"]
  try:
    result = subprocess.run(
      command, capture_output=True, text=True, timeout=10, check=True
    )
  except (OSError, subprocess.SubprocessError):
    return None
  return result.stdout.strip()
