"""How many kernels a hot loop launches on an H100; no GPU is needed.

    pip install "jax[cuda12]"     # best in an environment of its own
    python -m benchmarks.gpu_kernels [--only=plan]

XLA compiles for a described device, and the instructions of the program are
counted, those of a loop as often as it turns. At PlaNet's sizes a GPU waits for
kernels to be launched, so that their number is the time to a first guess.
Autotuning needs the device and is off: a real run chooses other products.
"""

import argparse
import functools
import os
import re
from collections.abc import Callable
from unittest import mock

from benchmarks import plan, sigreg, update

H100 = """
  platform_name: "CUDA"
  device_description_str: "NVIDIA H100 80GB HBM3"
  dnn_version_info { major: 9 minor: 10 patch: 0 }
  gpu_device_info {
    cuda_compute_capability { major: 9 minor: 0 }
    core_count: 132 fpus_per_core: 128 clock_rate_ghz: 1.98
    threads_per_warp: 32 threads_per_block_limit: 1024
    threads_per_core_limit: 2048
    registers_per_core_limit: 65536 registers_per_block_limit: 65536
    shared_memory_per_block: 49152 shared_memory_per_core: 233472
    shared_memory_per_block_optin: 232448
    block_dim_limit_x: 2147483647 block_dim_limit_y: 65535
    block_dim_limit_z: 65535
    memory_bandwidth: 3352320000000 l2_cache_size: 52428800
    device_memory_size: 84978434048
  }
"""
FLAGS = "--xla_gpu_autotune_level=0"
# Instructions that only name, or lay out, what is there.
NO_KERNEL = {
  "after-all", "bitcast", "constant", "get-tuple-element", "iota", "parameter",
  "partition-id", "replica-id", "tuple",
}  # fmt: skip
HEAD = re.compile(r"(ENTRY )?%?([\w.\-]+) \(.*\{$")
INSTRUCTION = re.compile(
  r"\s*(?:ROOT )?%?[\w.\-]+ = (?:\([^=]*?\)|\S+) ([\w\-]+)\("
)
BODY = re.compile(r"(?:body|to_apply|calls)=%?([\w.\-]+)")
TURNS = re.compile(r'known_trip_count":\{"n":"(\d+)"')


def count_kernels(hlo: str) -> int:
  """Counts what the compiled program `hlo` launches, as its text says.

  Raises:
    ValueError: for a loop that does not say how often it turns.
  """
  entry, computations = _computations(re.sub(r"/\*.*?\*/", "", hlo))

  def count(name: str) -> int:
    total = 0
    for line in computations[name]:
      found = INSTRUCTION.match(line)
      kind = found.group(1) if found else None
      if kind is None or kind in NO_KERNEL:
        continue
      if kind == "while":
        turns = TURNS.search(line)
        if turns is None:
          raise ValueError(f"a loop of an unknown length: {line.strip()[:80]}")
        total += int(turns.group(1)) * count(BODY.search(line).group(1))
      elif kind in ("call", "async-start"):
        total += count(BODY.search(line).group(1))
      else:
        total += 1
    return total

  return count(entry)


def _computations(hlo: str) -> tuple[str, dict[str, list[str]]]:
  entry, name, computations = "", None, {}
  for line in hlo.splitlines():
    head = HEAD.match(line)
    if head:
      name = head.group(2)
      computations[name] = []
      entry = name if head.group(1) else entry
    elif line.startswith("}"):
      name = None
    elif name:
      computations[name].append(line)
  return entry, computations


def compile_for_h100(make: Callable[[], tuple[Callable, tuple]]) -> str:
  """Compiles what `make` returns, a function and arguments for it.

  Returns:
    The text of the program.
  """
  import jax
  from jax.experimental import topologies

  try:
    description = topologies.get_topology_desc(
      platform="cuda", topology="1x1x1", target_config=H100
    )
  except NotImplementedError:
    raise SystemExit(
      "XLA's compiler for NVIDIA GPUs is not installed: pip install"
      ' "jax[cuda12]", and set JAX_SKIP_CUDA_CONSTRAINTS_CHECK=1'
    ) from None
  place = jax.sharding.SingleDeviceSharding(description.devices[0])
  shape = lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place)
  # Models have forms for CPUs, which go by the backend.
  with mock.patch.object(jax, "default_backend", lambda: "gpu"):
    function, args = make()
    shapes = jax.tree.map(shape, args)
    return jax.jit(function).lower(*shapes).compile().as_text()


PROGRAMS = {
  "plan, 1 environment, bfloat16": functools.partial(plan.make, dot="bfloat16"),
  "plan, 1 environment, float32": plan.make,
  "update, 50 x 50": update.make,
  "update, 50 x 50, overshooting 50": functools.partial(
    update.make, overshooting=True
  ),
  "SIGReg, 512 x 512 x 1024": functools.partial(sigreg.make, 512, 512, 1024),
}


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--only", default="", help="a word of the programs")
  flags = parser.parse_args()
  # There is no driver whose version could be checked.
  os.environ["JAX_SKIP_CUDA_CONSTRAINTS_CHECK"] = "1"
  os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {FLAGS}"
  print("| program | kernels |\n|---|---|")
  for title, make in PROGRAMS.items():
    if flags.only in title:
      count = count_kernels(compile_for_h100(make))
      print(f"| {title} | {count:,} |", flush=True)


if __name__ == "__main__":
  main()
