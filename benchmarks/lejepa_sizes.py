"""What both sides of `lejepa_step.py` have in common: sizes and operations."""

BATCH, VIEWS, IMAGE, PATCH = 64, 8, 32, 4
WIDTH, DEPTH, HEADS, MLP = 128, 4, 4, 512
HIDDEN, OUT, SLICES, LAMBDA = 2048, 64, 1024, 0.05
# A unit of work of the ViT-S/16 rows.
VIT_S_STEPS = 4
VIT_S_VIEWS = ((2, 224), (6, 96))


def small_flop(batch: int) -> float:
  """Counts for a step of the small ViT."""
  return count_flop(WIDTH, DEPTH, PATCH, [(VIEWS, IMAGE)], batch)


def vit_s_flop(batch: int) -> float:
  """Counts for a unit of work of ViT-S/16."""
  return count_flop(384, 12, 16, VIT_S_VIEWS, batch) * VIT_S_STEPS


def count_flop(width, depth, patch, views, batch) -> float:
  """Operations of the matrix products, forward and twice that backward.

  `views` is a list of `(number, side)`. Of the last block the loss needs one
  token alone, the others for their keys and values.
  """
  total = 0.0
  for number, side in views:
    tokens = 1 + (side // patch) ** 2
    attention = 2 * tokens * width
    blocks = tokens * (depth - 1) * (12 * width**2 + attention)
    blocks += (2 * tokens + 10) * width**2 + attention
    per_view = blocks + (tokens - 1) * 3 * patch**2 * width
    head = width * HIDDEN + HIDDEN**2 + HIDDEN * OUT
    total += 2.0 * number * (per_view + head)
  return 3.0 * batch * total
