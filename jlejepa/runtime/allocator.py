"""Memory and threads for XLA on the CPU, settled before it starts.

XLA on CPU takes large temporaries from malloc at every call. By default glibc
maps them afresh each time, and every page is a fault. Only arrays of more than
a gigabyte are still mapped: where small ones have split their place, a heap
grows by as much again.
"""

import os
import platform
import sys

SETTINGS = {
  "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
  "MALLOC_ARENA_MAX": "1",
  "MALLOC_MMAP_THRESHOLD_": str(2**30),
  "MALLOC_TOP_PAD_": str(256 * 2**20),
  "MALLOC_TRIM_THRESHOLD_": str(16 * 10**9),
}


def restart_with_tuned_allocator(arenas: int = 1) -> None:
  """Replaces this process by itself under `SETTINGS`, at most once.

  glibc reads them when a process starts, so they cannot be set later. Does
  nothing where they mean nothing (another C library) or where the user has set
  one of them. Call it first thing in a command, never in a library.

  Args:
    arenas: heaps, above 1 for programs that run side by side: on one heap they
      wait for each other's allocations.
  """
  chosen = any(name in os.environ for name in SETTINGS)
  # Before 2.35 a threshold above 32 MB was ignored, and nothing is gained.
  if chosen or not _is_glibc_from(2, 35):
    return
  os.environ.update(SETTINGS, MALLOC_ARENA_MAX=str(arenas))
  sys.stdout.flush()
  os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def _is_glibc_from(*wanted: int) -> bool:
  name, version = platform.libc_ver()
  return name == "glibc" and tuple(map(int, version.split("."))) >= wanted


def one_core_for_each_program() -> None:
  """Lets no XLA program on the CPU spread over several cores.

  For programs that run side by side: where each wants all cores, they wait for
  one another. Call it before JAX starts its backend. Does nothing where the
  user has set the flag.
  """
  flags = os.environ.get("XLA_FLAGS", "")
  if "xla_cpu_multi_thread_eigen" not in flags:
    flags += " --xla_cpu_multi_thread_eigen=false"
    os.environ["XLA_FLAGS"] = flags.strip()
