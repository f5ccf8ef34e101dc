"""Kernels counted in the text of a compiled program."""

import pytest
from jax.experimental import topologies

from benchmarks.gpu_kernels import compile_for_h100, count_kernels

HLO = """
%add (a: f32[], b: f32[]) -> f32[] {
  %a = f32[] parameter(0)
  %b = f32[] parameter(1)
  ROOT %sum = f32[] add(%a, %b)
}

%body (state: (s32[], f32[8])) -> (s32[], f32[8]) {
  %state = (s32[], /*index=1*/f32[8]{0}) parameter(0)
  %one = s32[] constant(1)
  %i = s32[] get-tuple-element(%state), index=0
  %x = f32[8]{0} get-tuple-element(%state), index=1
  %next = s32[] fusion(%i, %one), kind=kLoop, calls=%add
  %y = (f32[8]{0}, s8[64]{0}) custom-call(%x), custom_call_target="__cublas"
  %z = f32[8]{0} get-tuple-element(%y), index=0
  ROOT %out = (s32[], f32[8]{0}) tuple(%next, %z)
}

%graph (x: f32[8]) -> f32[8] {
  %x = f32[8]{0} parameter(0)
  %u = f32[8]{0} copy(%x)
  ROOT %v = f32[8]{0} fusion(%u), kind=kLoop, calls=%add
}

ENTRY %main (p: f32[8]) -> f32[8] {
  %p = f32[8]{0} parameter(0)
  %zero = s32[] constant(0)
  %t = (s32[], f32[8]{0}) tuple(%zero, %p)
  %loop = (s32[], /*index=1*/f32[8]{0}) while(%t), body=%body, TURNS
  %w = f32[8]{0} get-tuple-element(%loop), index=1
  %call = f32[8]{0} call(%w), to_apply=%graph
  ROOT %r = f32[8]{0} bitcast(%call)
}
""".replace("TURNS", 'backend_config={"known_trip_count":{"n":"12"}}')


def test_loops_count_as_often_as_they_turn():
  # A fusion and a product in each of 12 turns, a copy and a fusion after.
  assert count_kernels(HLO) == 12 * 2 + 2


def test_a_loop_of_unknown_length_is_refused():
  with pytest.raises(ValueError, match="unknown length: %loop"):
    count_kernels(HLO.replace("known_trip_count", "trip"))


def test_a_machine_without_the_compiler_of_gpus_says_so(monkeypatch):
  def absent(**_):
    raise NotImplementedError("topology not implemented for cuda")

  monkeypatch.setattr(topologies, "get_topology_desc", absent)
  with pytest.raises(SystemExit, match="pip install"):
    compile_for_h100(lambda: (lambda x: x, (1.0,)))
