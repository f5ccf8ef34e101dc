"""Draws docs/renderers.png and writes docs/renderers.md.

Run from the root of the repository, on a machine where OpenGL works:

  python docs/make_renderers_picture.py
"""

import os
import pathlib
import platform
import time

import matplotlib
import mujoco
import numpy as np

from jplanet.envs import TASKS, make_env
from jplanet.envs.probe import probe
from jplanet.envs.ray import RayRenderer

matplotlib.use("agg")
import matplotlib.pyplot as plt

HERE = pathlib.Path(__file__).parent
TEXT = """# The two renderers

![The eight tasks, OpenGL above ray casting](renderers.png)

Top: `renderer="gl"`, MuJoCo's own OpenGL pipeline and so the pixels of the
paper. Bottom: `renderer="ray"`, rays cast by MuJoCo and shaded with numpy by
the same lighting equations: headlight, lights and their shadows, floor
textures, the mirror image in the floor, sky, sites and strings. It needs no
OpenGL, no GPU and no package of the operating system. `renderer="auto"` takes
`gl` where a GPU renders and `ray` elsewhere. The renderer's name is kept next
to every score, because the pixels differ.

{table}

Difference: mean absolute difference of the two pictures above, 64x64, in grey
levels of 256. Speeds: pictures per second of processor time, that is on one
core; `ray 32` casts 2x2 rays a pixel. Measured with MuJoCo {mujoco} on a
machine of {cores} cores ({machine}) under a load of {load:.0f}, OpenGL by
{opengl}.

What `ray` leaves out: smooth edges at one ray a pixel (the default from 64
pixels on), so that a thing thinner than a pixel, such as the cartpole's rail,
can fall between rays; the smoothing of distant floor squares beyond a plain
mean; shadows thrown by planes, sites and strings; and textures on meshes (they
get their mean colour). OpenGL lights a floor at the corners of its grid and
blends between them, `ray` lights every point, so a floor under a lamp differs a
little (the walker's most).

Written by `docs/make_renderers_picture.py`.
"""


def speed(render, seconds=1.0):
  """Returns pictures per second of processor time, the best of batches."""
  render()
  rates, end = [], time.process_time() + seconds
  while time.process_time() < end or len(rates) < 3:
    start = time.process_time()
    for _ in range(10):
      render()
    rates.append(10 / (time.process_time() - start))
  # Other programs can only slow a batch down.
  return max(rates)


def compare(task):
  """Returns both pictures of one state, their difference and the speeds."""
  env = make_env(task, renderer="gl", seed=1)
  env.reset()
  for _ in range(4):
    env.step(np.full(env.action_spec().shape, 0.2, np.float32))
  gl = env.step(np.zeros(env.action_spec().shape)).observation
  ray = RayRenderer(env.physics, size=64)
  ray_small = RayRenderer(env.physics, size=32)
  picture = ray.render()
  result = {
    "gl": gl,
    "ray": picture,
    "difference": np.abs(gl.astype(float) - picture).mean(),
    "gl_speed": speed(env._draw.render),
    "ray_speed": speed(ray.render),
    "ray_small_speed": speed(ray_small.render),
  }
  env.close()
  return result


def draw(results):
  """Saves the picture."""
  figure, axes = plt.subplots(2, len(results), figsize=(16, 5.2))
  for column, (task, result) in enumerate(results.items()):
    for row, name in enumerate(("gl", "ray")):
      axis = axes[row, column]
      axis.imshow(result[name], interpolation="nearest")
      axis.set_xticks([])
      axis.set_yticks([])
      axis.set_xlabel(f"{result[name + '_speed']:.0f} pictures/s")
    axes[0, column].set_title(task)
    axes[1, column].set_xlabel(
      f"{result['ray_speed']:.0f} pictures/s\n"
      f"difference {result['difference']:.1f} of 255"
    )
  axes[0, 0].set_ylabel("OpenGL")
  axes[1, 0].set_ylabel("ray casting")
  figure.tight_layout()
  figure.savefig(HERE / "renderers.png", dpi=80)


def main():
  """Measures, draws and writes."""
  results = {task: compare(task) for task in TASKS}
  draw(results)
  rows = [
    "| task | difference | gl 64 /s | ray 64 /s | ray 32 /s |",
    "|---|---|---|---|---|",
  ]
  rows += [
    f"| {task} | {r['difference']:.1f} | {r['gl_speed']:.0f} | "
    f"{r['ray_speed']:.0f} | {r['ray_small_speed']:.0f} |"
    for task, r in results.items()
  ]
  text = TEXT.format(
    table="\n".join(rows),
    mujoco=mujoco.__version__,
    cores=os.cpu_count(),
    machine=platform.machine(),
    opengl=probe("egl") or probe("osmesa"),
    load=os.getloadavg()[0],
  )
  (HERE / "renderers.md").write_text(text.rstrip() + "\n")


if __name__ == "__main__":
  main()
