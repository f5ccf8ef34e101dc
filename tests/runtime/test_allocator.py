"""Settings that a program must have from its start."""

import os
from unittest import mock

import pytest

from jlejepa.runtime import allocator

FLAG = "--xla_cpu_multi_thread_eigen=false"


@pytest.fixture(autouse=True)
def environment():
  """What the functions write here must not reach other tests."""
  with mock.patch.dict(os.environ):
    for name in ("XLA_FLAGS", *allocator.SETTINGS):
      os.environ.pop(name, None)
    yield


@pytest.mark.parametrize(
  "before, after",
  [
    (None, FLAG),
    ("--xla_dump_to=x", f"--xla_dump_to=x {FLAG}"),
    ("--xla_cpu_multi_thread_eigen=true",) * 2,
  ],
)
def test_a_flag_of_the_users_own_stays(before, after):
  if before is not None:
    os.environ["XLA_FLAGS"] = before
  for _ in range(2):
    allocator.one_core_for_each_program()
    assert os.environ["XLA_FLAGS"] == after


@pytest.mark.parametrize("arenas", [1, 8])
def test_the_program_starts_again_once(monkeypatch, arenas):
  starts = []
  monkeypatch.setattr(allocator.platform, "libc_ver", lambda: ("glibc", "2.36"))
  monkeypatch.setattr(allocator.os, "execv", lambda *args: starts.append(args))
  for _ in range(2):
    allocator.restart_with_tuned_allocator(arenas)
  assert len(starts) == 1
  expected = allocator.SETTINGS | {"MALLOC_ARENA_MAX": str(arenas)}
  assert expected.items() <= os.environ.items()


def test_settings_of_the_users_own_are_left_alone(monkeypatch):
  monkeypatch.setattr(allocator.platform, "libc_ver", lambda: ("glibc", "2.36"))
  monkeypatch.setattr(allocator.os, "execv", lambda *args: pytest.fail("exec"))
  os.environ["MALLOC_ARENA_MAX"] = "2"
  allocator.restart_with_tuned_allocator()
  assert os.environ["MALLOC_ARENA_MAX"] == "2"


@pytest.mark.parametrize("libc", [("", ""), ("glibc", "2.34"), ("musl", "1.2")])
def test_other_c_libraries_are_left_alone(monkeypatch, libc):
  monkeypatch.setattr(allocator.platform, "libc_ver", lambda: libc)
  monkeypatch.setattr(allocator.os, "execv", lambda *args: pytest.fail("exec"))
  allocator.restart_with_tuned_allocator()
  assert not os.environ.keys() & allocator.SETTINGS.keys()
