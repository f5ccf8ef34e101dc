"""Decisions per second of cheetah_run with pixels, by renderer.

    python -m benchmarks.pixels [--rounds=N] [--json=FILE]

A decision is four control steps and one picture. The ray caster stands against
MuJoCo's own OpenGL, by EGL (Mesa's llvmpipe where there is no GPU) and by the
system's libosmesa6. The check is the sum of the rewards, which no renderer
changes.
"""

import functools

from benchmarks import harness
from benchmarks.harness import Case
from benchmarks.worker import Step

DECISIONS = 250  # An episode.


def play(
  renderer: str, size: int = 64, decisions: int = DECISIONS, task: str = ""
) -> Step:
  """Plays random actions from the start of the same episode."""
  import numpy as np

  from jplanet.envs import make_env

  env = make_env(task or "cheetah_run", size=size, renderer=renderer)
  rng = np.random.default_rng(0)
  shape = (decisions, *env.action_spec().shape)
  actions = rng.uniform(-1, 1, shape).astype(np.float32)

  def run():
    env.seed(0)
    env.reset()
    return sum(env.step(action).reward for action in actions)

  return Step(run=run, check=float(run()))


def cases(size: int) -> list[Case]:
  """The rows for pictures of `size`."""
  case = functools.partial(Case, build="benchmarks.pixels:play")
  rows = [case("jplanet, rays", options={"renderer": "ray", "size": size})]
  for name in ("gl:egl", "gl:osmesa"):
    options = {"renderer": name, "size": size}
    rows.append(case(f"MuJoCo, {name}", options=options, peer=True))
  return rows


def main() -> None:
  flags = harness.parser(__doc__.splitlines()[0]).parse_args()
  for size in (64, 32):
    title = f"cheetah_run, {DECISIONS} decisions, {size} x {size}"
    target = 1 / 15 if size == 64 else None
    rows = harness.table(title, cases(size), flags, target=target)
    for row in rows:
      if "failed" not in row:
        rate = DECISIONS / row["median_s"]
        print(f"{row['case']}: {rate:.0f} decisions per second")


if __name__ == "__main__":
  main()
