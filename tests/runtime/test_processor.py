"""What the machine says of its processor."""

import pytest

from jlejepa.runtime import processor

LINUX = """processor\t: 0
model name\t: AMD EPYC 9B14
flags\t\t: fpu sse4_2 avx avx2 avx512f avx512_bf16x

processor\t: 1
model name\t: another
flags\t\t: amx_bf16
"""


def say(monkeypatch, tmp_path, text):
  path = tmp_path / "cpuinfo"
  path.write_text(text)
  monkeypatch.setattr(processor, "CPUINFO", path)


def test_the_first_processor_speaks_for_all(monkeypatch, tmp_path):
  say(monkeypatch, tmp_path, LINUX)
  assert processor.processor_name() == "AMD EPYC 9B14"
  # Whole words: avx512_bf16x is none of them.
  assert processor.vector_sets() == ["avx2", "avx512f"]


@pytest.mark.parametrize("text", [None, "", "Features : fp asimd bf16\n"])
def test_a_machine_that_does_not_tell(monkeypatch, tmp_path, text):
  if text is None:
    monkeypatch.setattr(processor, "CPUINFO", tmp_path / "absent")
  else:
    say(monkeypatch, tmp_path, text)
  monkeypatch.setattr(processor.platform, "processor", lambda: "what it is")
  assert processor.processor_name() == "what it is"
  assert processor.vector_sets() == []
