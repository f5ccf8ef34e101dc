"""The rows in torch of `lejepa_step.py`; the regulariser is the peer's own."""

import torch

from benchmarks import device, torch_vit
from benchmarks import lejepa_sizes as sizes
from benchmarks.worker import Step


def small(
  bf16: bool = False,
  compiled: bool = False,
  batch: int = sizes.BATCH,
  hidden: int = sizes.HIDDEN,
) -> Step:
  """The same step in torch, on given views."""
  where = _device()
  encoder = torch_vit.ViT(
    sizes.WIDTH, sizes.DEPTH, sizes.HEADS, sizes.MLP, sizes.PATCH, sizes.IMAGE
  ).to(where)
  head = torch_vit.projector(sizes.WIDTH, hidden, sizes.OUT).to(where)
  views = [
    torch.randn(sizes.VIEWS, batch, sizes.IMAGE, sizes.IMAGE, 3, device=where)
  ]
  flop = sizes.small_flop(batch)
  return _step(encoder, head, views, bf16, compiled, flop)


def vit_s(batch: int, compiled: bool) -> Step:
  """timm's ViT-S/16 under bfloat16 autocast, on given views."""
  import timm

  where = _device()
  encoder = timm.create_model(
    "vit_small_patch16_224",
    num_classes=0,
    drop_path_rate=0.1,
    dynamic_img_size=True,
  ).to(where)
  head = torch_vit.projector(384, sizes.HIDDEN, sizes.OUT).to(where)
  views = [
    torch.randn(number, batch, 3, side, side, device=where)
    for number, side in sizes.VIT_S_VIEWS
  ]
  flop = sizes.vit_s_flop(batch)
  return _step(
    encoder, head, views, True, compiled, flop, steps=sizes.VIT_S_STEPS
  )


def _device():
  where = device.torch_device()
  if where.type == "cuda":  # as JAX does by default
    torch.set_float32_matmul_precision("high")
  return where


def _step(encoder, head, views, bf16, compiled, flop, steps=1) -> Step:
  step = torch_vit.make_step(
    encoder,
    head,
    num_slices=sizes.SLICES,
    lam=sizes.LAMBDA,
    bf16=bf16,
    compile=compiled,
  )

  def run():
    for _ in range(steps):
      loss = step(views)
    return loss.item()

  return Step(run=run, flop=flop, memory=device.torch_memory())
