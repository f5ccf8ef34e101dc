"""The machine's processor: its name and its sets of vector instructions."""

import platform
from pathlib import Path

CPUINFO = Path("/proc/cpuinfo")
# Those that decide how fast a matrix product is.
VECTOR_SETS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")


def processor_name() -> str:
  """Returns the model's name; as Python has it where Linux does not tell."""
  return _line("model name") or platform.processor()


def vector_sets() -> list[str]:
  """Returns those of `VECTOR_SETS` that the processor has; none off Linux."""
  flags = _line("flags").split()
  return [name for name in VECTOR_SETS if name in flags]


def _line(name: str) -> str:
  try:
    text = CPUINFO.read_text()
  except OSError:
    return ""
  for line in text.splitlines():
    key, _, value = line.partition(":")
    if key.strip() == name:
      return value.strip()
  return ""
