"""Fresh directions against fixed ones: how Gaussian free vectors become.

    python results/lejepa/fresh_directions.py

2,000 free vectors of 64 dimensions, started on the paper's X and on a line, are
moved by Adam to minimise SIGReg; judged on 1,024 directions that no descent
used. Writes `fresh_directions.png` and `.json` beside this file.
"""

import functools
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib
import optax

import jlejepa

N, D, STEPS, EVERY = 2000, 64, 600, 20
HERE = Path(__file__).parent
ARMS = {
  "fixed, M = 16": (jlejepa.random_directions, 16, False),
  "fixed, M = 64": (jlejepa.random_directions, 64, False),
  "fixed, M = 256": (jlejepa.random_directions, 256, False),
  "fresh, M = 16": (jlejepa.random_directions, 16, True),
  "fresh Sobol, M = 16": (jlejepa.sobol_directions, 16, True),
  "fresh orthogonal, M = 16": (jlejepa.orthogonal_directions, 16, True),
}


def x_shape(key):
  normal_key, sign_key = jax.random.split(key)
  x = jax.random.normal(normal_key, (N, D))
  return x.at[:, 1].set(x[:, 0] * jax.random.rademacher(sign_key, (N,)))


def line(key):
  along, noise = jax.random.split(key)
  x = jax.random.normal(along, (N, 1)) * jnp.ones(D) / jnp.sqrt(D)
  return x + 0.01 * jax.random.normal(noise, (N, D))


@functools.partial(jax.jit, static_argnames=("sampler", "slices", "fresh"))
def descend(x, key, *, sampler, slices, fresh):
  optimizer = optax.adam(optax.cosine_decay_schedule(0.2, STEPS))
  held_out = jlejepa.random_directions(jax.random.key(999), D, 1024)

  def step(carry, i):
    x, state = carry
    step_key = jax.random.fold_in(key, i if fresh else 0)
    gradient = jax.grad(jlejepa.sigreg)(
      x, step_key, num_slices=slices, sampler=sampler
    )
    updates, state = optimizer.update(gradient, state)
    return (optax.apply_updates(x, updates), state), None

  def chunk(carry, start):
    value = jlejepa.sliced(jlejepa.epps_pulley, carry[0], held_out)
    carry, _ = jax.lax.scan(step, carry, start + jnp.arange(EVERY))
    return carry, value

  starts = jnp.arange(0, STEPS, EVERY)
  (x, _), values = jax.lax.scan(chunk, (x, optimizer.init(x)), starts)
  last = jlejepa.sliced(jlejepa.epps_pulley, x, held_out)
  return jnp.append(values, last)


def main():
  matplotlib.use("Agg")
  import matplotlib.pyplot as plt

  figure, axes = plt.subplots(1, 2, figsize=(11, 4), sharey=True)
  table = {}
  for axis, (name, start) in zip(axes, {"X": x_shape, "line": line}.items()):
    x = start(jax.random.key(0))
    for arm, (sampler, slices, fresh) in ARMS.items():
      values = descend(
        x, jax.random.key(1), sampler=sampler, slices=slices, fresh=fresh
      )
      table.setdefault(name, {})[arm] = [round(float(v), 3) for v in values]
      axis.plot(
        EVERY * jnp.arange(len(values)), values, "-" if fresh else "--",
        label=arm,
      )  # fmt: skip
    axis.axhline(1.0525, color="grey", lw=0.8)
    axis.set(yscale="log", xlabel="step of Adam", title=f"start: {name}")
  axes[0].set_ylabel("SIGReg on held-out directions\n(grey: Gaussian samples)")
  axes[1].legend(fontsize=8)
  figure.tight_layout()
  figure.savefig(HERE / "fresh_directions.png", dpi=110)
  (HERE / "fresh_directions.json").write_text(json.dumps(table) + "\n")
  for name, arms in table.items():
    for arm, values in arms.items():
      print(f"{name:5} {arm:26} {values[0]:9.2f} -> {values[-1]:.2f}")


if __name__ == "__main__":
  main()
