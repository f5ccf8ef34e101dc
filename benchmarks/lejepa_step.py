"""LeJEPA's whole training step: networks, loss, gradients, AdamW.

    python -m benchmarks.lejepa_step [--lejepa=PATH] [--rounds=N] [--json=FILE]
    python -m benchmarks.lejepa_step --vit_s [--batch=128] ...

The first is a small ViT (patch 4, 128 wide, 4 deep) on 64 images, 8 views of
32x32 each. The second, for a GPU, is the paper's ViT-S/16 with 2 views of 224
and 6 of 96 pixels, which our rows make of 256x256 bytes in the same program;
the peer's rows are given theirs.
"""

import functools

import jax
import jax.numpy as jnp

from benchmarks import device, harness
from benchmarks.harness import Case
from benchmarks.worker import Step

BATCH, VIEWS, IMAGE, PATCH = 64, 8, 32, 4
WIDTH, DEPTH, HEADS, MLP = 128, 4, 4, 512
HIDDEN, OUT, SLICES, LAMBDA = 2048, 64, 1024, 0.05
TARGET = 0.95
VIT_S_STEPS = 4  # a unit of work of the second benchmark


def count_flop(width, depth, patch, views, batch) -> float:
  """Operations of the matrix products, forward and twice that backward.

  `views` is a list of `(number, side)`.
  """
  total = 0.0
  for number, side in views:
    tokens = 1 + (side // patch) ** 2
    block = 12 * width**2 + 2 * tokens * width
    per_view = tokens * depth * block + (tokens - 1) * 3 * patch**2 * width
    head = width * HIDDEN + HIDDEN**2 + HIDDEN * OUT
    total += 2.0 * number * (per_view + head)
  return 3.0 * batch * total


def ours(
  precision: str = "float32",
  make: bool = False,
  batch: int = BATCH,
  hidden: int = HIDDEN,
) -> Step:
  """The library's step on given views, or on images of which it makes them.

  Args:
    precision: "bfloat16" is what fits the device: the type of the activations
      on a GPU, of the dense layers' products on a CPU.
    make: make the views in the step.
    batch: images.
    hidden: of the projector.
  """
  from jlejepa.encoders.layers import from_module
  from jlejepa.encoders.vit import Size, ViT
  from jlejepa.views import Views, make_views, small_specs

  dot = dtype = precision
  if precision == "bfloat16":
    on_cpu = jax.default_backend() == "cpu"
    dot, dtype = (dot, "float32") if on_cpu else ("float32", dtype)
  size, grid = Size(WIDTH, DEPTH, HEADS, MLP), IMAGE // PATCH
  encoder = from_module(
    ViT(size, PATCH, grid, 0, "cls", 0.0, 0.0, dot, dtype, "cudnn")
  )
  if make:
    views = functools.partial(
      make_views, global_spec=small_specs()[0], num_global=VIEWS
    )
    shape, kind = (batch, IMAGE, IMAGE, 3), jnp.uint8
  else:
    views = lambda key, image: Views(image, image[:0])
    shape, kind = (batch, VIEWS, IMAGE, IMAGE, 3), jnp.float32
  flop = count_flop(WIDTH, DEPTH, PATCH, [(VIEWS, IMAGE)], batch)
  return _step(encoder, views, shape, kind, IMAGE, flop, dot=dot, hidden=hidden)


def ours_vit_s(batch: int, attention: str) -> Step:
  """The paper's recipe as `configs/lejepa.py:vit` has it, in bfloat16."""
  from jlejepa.encoders import make_encoder
  from jlejepa.views import make_views, paper_specs

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
    count_flop(384, 12, 16, [(2, 224), (6, 96)], batch) * VIT_S_STEPS,
    steps=VIT_S_STEPS,
  )


def _step(
  encoder, views, shape, kind, side, flop, dot="float32", hidden=HIDDEN, steps=1
) -> Step:
  from jlejepa.directions import random_directions
  from jlejepa.encoders import make_projector
  from jlejepa.learner import LossOptions, init_state, make_train_step
  from jlejepa.model import Model
  from jlejepa.optimizers import make_optimizer

  model = Model(encoder, make_projector(hidden=hidden, out=OUT, dot=dot))
  optimizer = make_optimizer(5e-4, total_steps=10_000)
  options = LossOptions(LAMBDA, SLICES, 3.0, 17, None, random_directions, 0.0)
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


def peer(bf16: bool = False, compiled: bool = False) -> Step:
  """The same step in torch, on given views."""
  import torch

  from benchmarks import torch_vit

  where = _torch_device()
  encoder = torch_vit.ViT(WIDTH, DEPTH, HEADS, MLP, PATCH, IMAGE).to(where)
  head = torch_vit.projector(WIDTH, HIDDEN, OUT).to(where)
  views = [torch.randn(VIEWS, BATCH, IMAGE, IMAGE, 3, device=where)]
  flop = count_flop(WIDTH, DEPTH, PATCH, [(VIEWS, IMAGE)], BATCH)
  return _torch_step(encoder, head, views, bf16, compiled, flop)


def peer_vit_s(batch: int, compiled: bool) -> Step:
  """timm's ViT-S/16 under bfloat16 autocast, on given views."""
  import timm
  import torch

  from benchmarks import torch_vit

  where = _torch_device()
  encoder = timm.create_model(
    "vit_small_patch16_224",
    num_classes=0,
    drop_path_rate=0.1,
    dynamic_img_size=True,
  ).to(where)
  head = torch_vit.projector(384, HIDDEN, OUT).to(where)
  views = [
    torch.randn(number, batch, 3, side, side, device=where)
    for number, side in ((2, 224), (6, 96))
  ]
  flop = count_flop(384, 12, 16, [(2, 224), (6, 96)], batch) * VIT_S_STEPS
  return _torch_step(
    encoder, head, views, True, compiled, flop, steps=VIT_S_STEPS
  )


def _torch_device():
  import torch

  where = device.torch_device()
  if where.type == "cuda":  # as JAX does by default
    torch.set_float32_matmul_precision("high")
  return where


def _torch_step(encoder, head, views, bf16, compiled, flop, steps=1) -> Step:
  from benchmarks import torch_vit

  step = torch_vit.make_step(
    encoder,
    head,
    num_slices=SLICES,
    lam=LAMBDA,
    bf16=bf16,
    compile=compiled,
  )

  def run():
    for _ in range(steps):
      loss = step(views)
    return loss.item()

  return Step(run=run, flop=flop, memory=device.torch_memory())


def cases(path: str | None) -> list[Case]:
  """The rows of the small ViT; the bfloat16 form comes first."""
  ours = functools.partial(Case, build="benchmarks.lejepa_step:ours")
  half = {"precision": "bfloat16"}
  rows = [
    ours("jlejepa bfloat16", options=half, dtype="bfloat16"),
    ours(
      "jlejepa bfloat16, makes its views",
      options=half | {"make": True},
      dtype="bfloat16",
    ),
    ours("jlejepa float32"),
  ]
  if path is None:
    return rows
  peer = functools.partial(
    Case, build="benchmarks.lejepa_step:peer", peer=True, path=path
  )
  for compiled in (False, True):
    name = "torch.compile" if compiled else "torch"
    rows += [
      peer(f"{name} float32", options={"compiled": compiled}),
      peer(
        f"{name} bfloat16 autocast",
        options={"compiled": compiled, "bf16": True},
        dtype="bfloat16",
      ),
    ]
  return rows


def cases_vit_s(path: str | None, batch: int) -> list[Case]:
  """The rows of ViT-S/16, each for a table of its own."""
  rows = [
    Case(
      f"jlejepa bfloat16, attention by {attention}",
      "benchmarks.lejepa_step:ours_vit_s",
      {"batch": batch, "attention": attention},
      dtype="bfloat16",
    )
    for attention in ("cudnn", "xla")
  ]
  if path is None:
    return rows
  return rows + [
    Case(
      "timm, torch.compile bfloat16 autocast, views given",
      "benchmarks.lejepa_step:peer_vit_s",
      {"batch": batch, "compiled": True},
      peer=True,
      dtype="bfloat16",
      path=path,
    )
  ]


def main() -> None:
  parser = harness.parser(__doc__.splitlines()[0])
  parser.add_argument("--lejepa", help="a checkout of rbalestr-lab/lejepa")
  parser.add_argument("--vit_s", action="store_true", help="ViT-S/16: GPU only")
  parser.add_argument("--batch", type=int, default=128, help="of --vit_s")
  flags = parser.parse_args()
  if not flags.lejepa:
    harness.missing(
      "--lejepa=PATH of github.com/rbalestr-lab/lejepa, and torch"
    )
  common = dict(rounds=flags.rounds, matmul=flags.matmul, out=flags.json)
  if not flags.vit_s:
    title = "LeJEPA step, ViT 4/128/4, 64 images x 8 views of 32x32"
    harness.compare(title, cases(flags.lejepa), target=TARGET, **common)
    return
  # One table each: two of these networks would not fit beside each other at
  # every batch size, and XLA's choice of kernels needs the device to itself.
  for case in cases_vit_s(flags.lejepa, flags.batch):
    title = f"ViT-S/16, 2 x 224 + 6 x 96, batch {flags.batch}: {case.name}"
    if flags.only not in title:
      continue
    [row, *_] = harness.compare(title, [case], **common)
    if "failed" not in row:
      rate = flags.batch * VIT_S_STEPS / row["median_s"]
      print(f"{rate:.0f} images per second ({VIT_S_STEPS} steps timed at once)")


if __name__ == "__main__":
  main()
