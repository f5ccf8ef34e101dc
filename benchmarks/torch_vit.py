"""LeJEPA's training step in torch, as plain and as fast as torch allows.

The network is `jlejepa.encoders.vit` and `jlejepa.encoders.projector` again,
with the same names, so that a test can copy weights across. The regulariser is
the peer's own.
"""

from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional as F


class Block(nn.Module):
  """`x + attention(norm(x))`, then `x + mlp(norm(x))`, for `[N, T, width]`."""

  def __init__(self, width: int, heads: int, mlp: int):
    super().__init__()
    self.heads = heads
    self.attention_norm = nn.LayerNorm(width, eps=1e-6)
    self.qkv = nn.Linear(width, 3 * width)
    self.attention = nn.Linear(width, width)
    self.mlp_norm = nn.LayerNorm(width, eps=1e-6)
    self.mlp_in = nn.Linear(width, mlp)
    self.mlp_out = nn.Linear(mlp, width)

  def forward(self, x):
    qkv = self.qkv(self.attention_norm(x))
    qkv = qkv.reshape(*x.shape[:2], 3, self.heads, -1).permute(2, 0, 3, 1, 4)
    mixed = F.scaled_dot_product_attention(*qkv)
    x = x + self.attention(mixed.transpose(1, 2).reshape(x.shape))
    return x + self.mlp_out(F.gelu(self.mlp_in(self.mlp_norm(x))))


class ViT(nn.Module):
  """Images `[N, S, S, 3]` to the embedding `[N, width]` of the CLS token."""

  def __init__(self, width, depth, heads, mlp, patch, image):
    super().__init__()
    self.patch_size, tokens = patch, (image // patch) ** 2
    self.patch = nn.Linear(3 * patch**2, width)
    self.cls = nn.Parameter(1e-6 * torch.randn(1, width))
    self.position = nn.Parameter(0.02 * torch.randn(1 + tokens, width))
    self.blocks = nn.Sequential(
      *[Block(width, heads, mlp) for _ in range(depth)]
    )
    self.norm = nn.LayerNorm(width, eps=1e-6)
    for layer in self.blocks.modules():
      if isinstance(layer, nn.Linear):
        nn.init.normal_(layer.weight, std=0.02)
        nn.init.zeros_(layer.bias)

  def forward(self, images):
    n, side, patch = len(images), images.shape[1], self.patch_size
    grid = side // patch
    x = images.reshape(n, grid, patch, grid, patch, 3)
    x = self.patch(x.permute(0, 1, 3, 2, 4, 5).reshape(n, grid**2, -1))
    cls = self.cls.to(x.dtype).expand(n, 1, -1)
    x = torch.cat([cls, x], dim=1) + self.position
    return self.norm(self.blocks(x)[:, 0])


def projector(width: int, hidden: int, out: int) -> nn.Sequential:
  """The MLP with BatchNorm of `jlejepa.encoders.projector`, three layers."""
  return nn.Sequential(
    nn.Linear(width, hidden),
    nn.BatchNorm1d(hidden, eps=1e-5),
    nn.ReLU(),
    nn.Linear(hidden, hidden),
    nn.BatchNorm1d(hidden, eps=1e-5),
    nn.ReLU(),
    nn.Linear(hidden, out),
  )


def make_step(
  encoder: nn.Module,
  head: nn.Module,
  *,
  num_slices: int,
  lam: float,
  bf16: bool,
  compile: bool,
) -> Callable[[list[torch.Tensor]], float]:
  """Makes `step(views)`, which does one update and returns the loss.

  Args:
    encoder: images to embeddings.
    head: embeddings to projections.
    num_slices: of SIGReg.
    lam: the trade-off.
    bf16: run the networks under autocast; the loss stays float32.
    compile: compile encoder, projector and regulariser.

  Returns:
    The step. It takes groups of views, `[V, B, ...]` each, the global ones
    first; every group is one batch of the encoder, all are one of the head.
  """
  from lejepa.multivariate import SlicingUnivariateTest
  from lejepa.univariate.epps_pulley import EppsPulley

  where = next(encoder.parameters()).device
  test = SlicingUnivariateTest(EppsPulley(), num_slices=num_slices).to(where)
  optimizer = torch.optim.AdamW(
    [*encoder.parameters(), *head.parameters()],
    lr=5e-4,
    weight_decay=0.05,
    fused=True,
  )
  if compile:
    encoder, head, test = map(torch.compile, (encoder, head, test))

  def step(views):
    optimizer.zero_grad(set_to_none=True)
    batch = views[0].shape[1]
    with torch.autocast(where.type, torch.bfloat16, enabled=bf16):
      embeddings = [encoder(group.flatten(0, 1)) for group in views]
      z = head(torch.cat(embeddings))
    z = z.float().unflatten(0, (-1, batch))
    centre = z[: len(views[0])].mean(0)
    prediction = (z - centre).square().mean()
    loss = (1 - lam) * prediction + lam * test(z)
    loss.backward()
    optimizer.step()
    return loss.detach()

  return step
