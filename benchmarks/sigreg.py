"""SIGReg, forward and backward, with fresh directions at every call.

    python -m benchmarks.sigreg [--lejepa=PATH] [--rounds=N] [--json=FILE]
    python -m benchmarks.sigreg --parts

Embeddings `[N, D]`, `M` slices, 17 knots on [0, 3]; everything in float32. A
unit of work is one call, on a GPU twenty in a row.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp

from benchmarks import device, harness
from benchmarks.harness import Case
from benchmarks.worker import Step

SHAPES = ((512, 512, 1024), (4096, 512, 1024), (512, 1024, 4096))
# What a process takes for the program alone, libraries and compiler included.
SMALLEST = (8, 8, 8)
KNOTS = 17
T_MAX = 3.0
TARGET = 0.6


def count_flop(n: int, d: int, m: int) -> float:
  """Operations of both projections and of plain recurrences over the knots.

  Per sample and knot a complex product and two sums (8) forward, a complex
  product and sum (8) backward.
  """
  return 2.0 * 2 * n * d * m + 16.0 * n * m * KNOTS


def plain(x: jax.Array) -> jax.Array:
  """Epps-Pulley as it is written down: a sine and a cosine for every knot."""
  t = jnp.linspace(0.0, T_MAX, KNOTS)
  target = jnp.exp(-0.5 * t**2)
  weights = jnp.full(KNOTS, 2 * t[1]).at[jnp.array([0, -1])].set(t[1]) * target
  angles = x[..., None] * t
  cosine = jnp.mean(jnp.cos(angles), axis=-3)
  sine = jnp.mean(jnp.sin(angles), axis=-3)
  return x.shape[-2] * (((cosine - target) ** 2 + sine**2) @ weights)


def make(n: int, d: int, m: int, form: str = "fast") -> tuple[Callable, tuple]:
  """`jlejepa.sigreg` and its gradient, of embeddings and a seed.

  With the `form` "plain" it gets the test written above.
  """
  import jlejepa

  test = {"fast": None, "plain": plain}[form]

  def loss(z, seed):
    key = jax.random.fold_in(jax.random.key(0), seed)
    return jlejepa.sigreg(z, key, num_slices=m, test=test)

  z = jax.random.normal(jax.random.key(1), (n, d))
  return jax.value_and_grad(loss), (z, jnp.int32(0))


def ours(n: int, d: int, m: int, form: str = "fast", calls: int = 0) -> Step:
  """The same as a `Step`, whose seeds are 0, 1 and so on."""
  function, (z, first) = make(n, d, m, form)
  function = jax.jit(function)
  times = calls or calls_on(jax.default_backend())
  # Of one type, or it would be compiled anew.
  seeds = [first + i for i in range(times)]

  def run():
    for seed in seeds:
      out = function(z, seed)
    jax.block_until_ready(out)

  return Step(
    run=run,
    flop=count_flop(n, d, m) * times,
    check=float(function(z, first)[0]),
    memory=device.jax_memory(),
  )


def part(n: int, d: int, m: int, what: str) -> Step:
  """One of `PARTS` by itself, on one device."""
  from jlejepa.circle import cos_sin
  from jlejepa.directions import random_directions
  from jlejepa.ecf import epps_pulley
  from jlejepa.one_pass import one_pass

  highest = functools.partial(jnp.matmul, precision=jax.lax.Precision.HIGHEST)
  keys = jax.random.split(jax.random.key(0), 3)
  z, g = (jax.random.normal(k, (n, w)) for k, w in zip(keys, (d, m)))
  a = random_directions(keys[2], d, m)
  statistic = lambda x: epps_pulley(x).mean()
  function, args = {
    "directions": (lambda k: random_directions(k, d, m), (keys[2],)),
    "projection": (highest, (z, a)),
    "its transpose": (lambda g, a: highest(g, a.T), (g, a)),
    "random bits": (lambda k: jax.random.bits(one_pass(k), (d, m)), (keys[2],)),
    "cosine and sine": (cos_sin, (g,)),
    "JAX's own bits": (lambda k: jax.random.bits(k, (d, m)), (keys[2],)),
    "XLA's own": (lambda x: (jnp.cos(x), jnp.sin(x)), (g,)),
    "Epps-Pulley": (statistic, (g,)),
    "Epps-Pulley and gradient": (jax.value_and_grad(statistic), (g,)),
  }[what]
  function = jax.jit(function)
  return Step(
    run=lambda: jax.block_until_ready(function(*args)),
    memory=device.jax_memory(),
  )


PARTS = (
  "directions", "random bits", "JAX's own bits", "projection", "its transpose",
  "cosine and sine", "XLA's own", "Epps-Pulley", "Epps-Pulley and gradient",
)  # fmt: skip


def peer(
  n: int, d: int, m: int, compiled: bool = False, calls: int = 0
) -> Step:
  """The official `SlicingUnivariateTest(EppsPulley)`."""
  import torch
  from lejepa.multivariate import SlicingUnivariateTest
  from lejepa.univariate.epps_pulley import EppsPulley

  where = device.torch_device()
  test = SlicingUnivariateTest(
    EppsPulley(t_max=T_MAX, n_points=KNOTS), num_slices=m
  ).to(where)
  if compiled:
    test = torch.compile(test)
  torch.manual_seed(0)
  z = torch.randn(n, d, device=where, requires_grad=True)
  times = calls or calls_on(where.type)

  def run():
    for _ in range(times):
      z.grad = None
      test(z).backward()
    device.torch_wait()

  with torch.no_grad():
    value = test(z).item()
  return Step(
    run=run,
    flop=count_flop(n, d, m) * times,
    check=value,
    memory=device.torch_memory(),
  )


def calls_on(backend: str) -> int:
  """Returns how many calls make a unit: one takes well under 1 ms on a GPU."""
  return 1 if backend == "cpu" else 20


def cases(n: int, d: int, m: int, path: str | None) -> list[Case]:
  """The rows of one shape."""
  options = {"n": n, "d": d, "m": m}
  ours = functools.partial(Case, build="benchmarks.sigreg:ours")
  rows = [
    ours("jlejepa.sigreg", options=options),
    ours("plain autodiff", options=options | {"form": "plain"}),
  ]
  if path is None:
    return rows
  peer = functools.partial(
    Case, build="benchmarks.sigreg:peer", peer=True, path=path
  )
  return rows + [
    peer("lejepa as shipped", options=options),
    peer("lejepa, torch.compile", options=options | {"compiled": True}),
  ]


def main() -> None:
  parser = harness.parser(__doc__.splitlines()[0])
  parser.add_argument("--lejepa", help="a checkout of rbalestr-lab/lejepa")
  parser.add_argument(
    "--parts", action="store_true", help="what our time is made of"
  )
  flags = parser.parse_args()
  if flags.parts:
    for n, d, m in SHAPES:
      whole = cases(n, d, m, None)[:1]
      sizes = {"n": n, "d": d, "m": m}
      parts = [
        Case(what, "benchmarks.sigreg:part", options=sizes | {"what": what})
        for what in PARTS
      ]
      harness.table(f"SIGReg by parts, N={n} D={d} M={m}", whole + parts, flags)
    return
  if not flags.lejepa:
    harness.missing(
      "--lejepa=PATH of github.com/rbalestr-lab/lejepa, and torch"
    )
  calls = " x 20" if device.on_gpu() else ""
  for n, d, m in (SMALLEST, *SHAPES):
    title = f"SIGReg forward and backward{calls}, N={n} D={d} M={m}"
    target = None if (n, d, m) == SMALLEST else TARGET
    harness.table(title, cases(n, d, m, flags.lejepa), flags, target=target)


if __name__ == "__main__":
  main()
