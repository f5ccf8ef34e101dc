"""LeJEPA's whole training step: networks, loss, gradients, AdamW.

    python -m benchmarks.lejepa_step [--lejepa=PATH] [--rounds=N] [--json=FILE]
    python -m benchmarks.lejepa_step --vit_s [--batch=128] ...

The first is a small ViT (patch 4, 128 wide, 4 deep) on 64 images, 8 views of
32x32 each. The second, for a GPU, is the paper's ViT-S/16 with 2 views of 224
and 6 of 96 pixels, which our rows make of 256x256 bytes in the same program;
the peer's rows are given theirs.
"""

import functools

from benchmarks import device, harness
from benchmarks.harness import Case
from benchmarks.lejepa_sizes import VIT_S_STEPS

TARGET = 0.95


def cases(path: str | None, gpu: bool) -> list[Case]:
  """The rows of the small ViT; the bfloat16 form comes first."""
  ours = functools.partial(Case, build="benchmarks.lejepa_ours:small")
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
  if gpu:
    rows.append(
      ours(
        "jlejepa bfloat16, attention by XLA",
        options=half | {"attention": "xla"},
        dtype="bfloat16",
      )
    )
  if path is None:
    return rows
  peer = functools.partial(
    Case, build="benchmarks.lejepa_torch:small", peer=True, path=path
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
      "benchmarks.lejepa_ours:vit_s",
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
      "benchmarks.lejepa_torch:vit_s",
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
  if not flags.vit_s:
    title = "LeJEPA step, ViT 4/128/4, 64 images x 8 views of 32x32"
    rows = cases(flags.lejepa, device.on_gpu())
    harness.table(title, rows, flags, target=TARGET)
    return
  # One table each: two of these networks would not fit beside each other at
  # every batch size, and XLA's choice of kernels needs the device to itself.
  for case in cases_vit_s(flags.lejepa, flags.batch):
    title = f"ViT-S/16, 2 x 224 + 6 x 96, batch {flags.batch}: {case.name}"
    rows = harness.table(title, [case], flags)
    if rows and "failed" not in rows[0]:
      rate = flags.batch * VIT_S_STEPS / rows[0]["median_s"]
      print(f"{rate:.0f} images per second ({VIT_S_STEPS} steps timed at once)")


if __name__ == "__main__":
  main()
