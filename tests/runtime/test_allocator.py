"""Settings that a program must have from its start."""

import os

import pytest

from jlejepa.runtime import allocator

FLAG = "--xla_cpu_multi_thread_eigen=false"


@pytest.mark.parametrize(
  "before, after",
  [
    (None, FLAG),
    ("--xla_dump_to=x", f"--xla_dump_to=x {FLAG}"),
    ("--xla_cpu_multi_thread_eigen=true",) * 2,
  ],
)
def test_a_flag_of_the_users_own_stays(monkeypatch, before, after):
  monkeypatch.delenv("XLA_FLAGS", raising=False)
  if before is not None:
    monkeypatch.setenv("XLA_FLAGS", before)
  for _ in range(2):
    allocator.one_core_for_each_program()
    assert os.environ["XLA_FLAGS"] == after


def test_the_program_starts_again_once(monkeypatch):
  starts = []
  for name in allocator.SETTINGS:
    monkeypatch.delenv(name, raising=False)
  monkeypatch.setattr(allocator.platform, "libc_ver", lambda: ("glibc", "2.36"))
  monkeypatch.setattr(allocator.os, "execv", lambda *args: starts.append(args))
  for _ in range(2):
    allocator.restart_with_tuned_allocator()
  assert len(starts) == 1
  assert allocator.SETTINGS.items() <= os.environ.items()
