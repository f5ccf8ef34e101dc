"""Our rows of `lejepa_step.py`."""

import functools

import jax
import jax.numpy as jnp

from benchmarks import device
from benchmarks import lejepa_sizes as sizes
from benchmarks.worker import Step
from jlejepa.directions import random_directions
from jlejepa.encoders import make_encoder, make_projector
from jlejepa.encoders.layers import from_module
from jlejepa.encoders.vit import Size, ViT
from jlejepa.learner import LossOptions, init_state, make_train_step
from jlejepa.model import Model
from jlejepa.optimizers import make_optimizer
from jlejepa.views import Views, make_views, paper_specs, small_specs


def small(
  precision: str = "float32",
  make: bool = False,
  attention: str = "cudnn",
  batch: int = sizes.BATCH,
  hidden: int = sizes.HIDDEN,
) -> Step:
  """The library's step on given views, or on images of which it makes them.

  Args:
    precision: "bfloat16" is what fits the device: the type of the activations
      on a GPU, of the dense layers' products on a CPU.
    make: make the views in the step.
    attention: "cudnn" is XLA's, too, where cuDNN has none.
    batch: images.
    hidden: of the projector.
  """
  dot = dtype = precision
  if precision == "bfloat16":
    on_cpu = jax.default_backend() == "cpu"
    dot, dtype = (dot, "float32") if on_cpu else ("float32", dtype)
  size, grid = (
    Size(sizes.WIDTH, sizes.DEPTH, sizes.HEADS, sizes.MLP),
    sizes.IMAGE // sizes.PATCH,
  )
  encoder = from_module(
    ViT(size, sizes.PATCH, grid, 0, "cls", 0.0, 0.0, dot, dtype, attention)
  )
  if make:
    views = functools.partial(
      make_views, global_spec=small_specs()[0], num_global=sizes.VIEWS
    )
    shape, kind = (batch, sizes.IMAGE, sizes.IMAGE, 3), jnp.uint8
  else:
    views = lambda key, image: Views(image, image[:0])
    shape, kind = (batch, sizes.VIEWS, sizes.IMAGE, sizes.IMAGE, 3), jnp.float32
  flop = sizes.small_flop(batch)
  return _step(
    encoder, views, shape, kind, sizes.IMAGE, flop, dot=dot, hidden=hidden
  )


def vit_s(batch: int, attention: str) -> Step:
  """The paper's recipe as `configs/lejepa.py:vit` has it, in bfloat16."""
  encoder = make_encoder("vit", dtype="bfloat16", attention=attention)
  specs = paper_specs()
  views = functools.partial(
    make_views,
    global_spec=specs[0],
    local_spec=specs[1],
    num_global=2,
    num_local=6,
  )
  return _step(
    encoder,
    views,
    (batch, 256, 256, 3),
    jnp.uint8,
    224,
    sizes.vit_s_flop(batch),
    steps=sizes.VIT_S_STEPS,
  )


def _step(
  encoder,
  views,
  shape,
  kind,
  side,
  flop,
  dot="float32",
  hidden=sizes.HIDDEN,
  steps=1,
) -> Step:
  model = Model(encoder, make_projector(hidden=hidden, out=sizes.OUT, dot=dot))
  optimizer = make_optimizer(5e-4, total_steps=10_000)
  options = LossOptions(
    sizes.LAMBDA, sizes.SLICES, 3.0, 17, None, random_directions, 0.0
  )
  init = functools.partial(
    init_state, model=model, optimizer=optimizer, num_classes=0
  )
  state = jax.jit(init)(jax.random.key(0), images=jnp.zeros((2, side, side, 3)))
  images = jax.random.normal(jax.random.key(1), shape)
  if kind == jnp.uint8:
    images = jax.random.randint(jax.random.key(1), shape, 0, 256).astype(kind)
  step = jax.jit(
    make_train_step(model, optimizer, views, options), donate_argnums=0
  )
  key = jax.random.key(2)

  def run():
    nonlocal state
    for _ in range(steps):
      state, metrics = step(state, images, None, key)
    return float(metrics["loss"])

  return Step(run=run, flop=flop, memory=device.jax_memory())
