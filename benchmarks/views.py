"""512 augmented views of 32x32 images: crop, flip, jitter, grey, normalise.

    python -m benchmarks.views [--rounds=N] [--json=FILE]

Ours is one compiled program over the batch, on the device. The peers make one
image after the other on the CPU, as data loaders do: PIL by hand, and
torchvision's transforms on PIL images where it is installed.
"""

import functools
import importlib.util
import math
import random
from collections.abc import Callable

import numpy as np

from benchmarks import device, harness
from benchmarks.harness import Case
from benchmarks.worker import Step

TARGET = 0.1
COUNT, SIZE = 512, 32
SCALE, RATIO = (0.25, 1.0), (3 / 4, 4 / 3)
STRENGTH = {"brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "hue": 0.1}
JITTER, GREY, FLIP = 0.8, 0.2, 0.5
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)


def images(count: int) -> np.ndarray:
  """Draws bytes `[count, 32, 32, 3]`."""
  shape = (count, SIZE, SIZE, 3)
  return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


def ours(count: int = COUNT) -> Step:
  """`jlejepa.views.make_view`, mapped over keys and images."""
  import jax

  from jlejepa.views import ViewSpec, make_view

  spec = ViewSpec(
    size=SIZE,
    scale=SCALE,
    ratio=RATIO,
    flip=FLIP,
    jitter_prob=JITTER,
    gray_prob=GREY,
    mean=MEAN,
    std=STD,
    **STRENGTH,
  )
  many = jax.jit(
    lambda key, x: jax.vmap(functools.partial(make_view, spec=spec))(
      jax.random.split(key, count), x
    )
  )
  x = jax.device_put(images(count))
  key = jax.random.key(0)
  return Step(
    run=lambda: many(key, x).block_until_ready(),
    memory=device.jax_memory(),
  )


def by_pil(count: int = COUNT) -> Step:
  """PIL, one image at a time, by torchvision's rules."""
  from PIL import Image

  pictures = [Image.fromarray(x) for x in images(count)]
  return Step(run=lambda: np.stack([_pil_view(x) for x in pictures]))


def _pil_view(picture) -> np.ndarray:
  from PIL import Image, ImageEnhance

  box = _box(*picture.size)
  picture = picture.crop(box).resize((SIZE, SIZE), Image.Resampling.BILINEAR)
  if random.random() < FLIP:
    picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
  if random.random() < JITTER:
    enhance = {
      "brightness": ImageEnhance.Brightness,
      "contrast": ImageEnhance.Contrast,
      "saturation": ImageEnhance.Color,
    }
    for name in random.sample(list(STRENGTH), len(STRENGTH)):
      amount = random.uniform(-STRENGTH[name], STRENGTH[name])
      if name == "hue":
        picture = _turn(picture, amount)
      else:
        picture = enhance[name](picture).enhance(1 + amount)
  if random.random() < GREY:
    picture = picture.convert("L").convert("RGB")
  x = np.asarray(picture, np.float32) / 255
  return (x - np.float32(MEAN)) / np.float32(STD)


def _box(width: int, height: int) -> tuple[int, int, int, int]:
  for _ in range(10):
    area = width * height * random.uniform(*SCALE)
    aspect = math.exp(random.uniform(*map(math.log, RATIO)))
    w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
    if 0 < w <= width and 0 < h <= height:
      left, top = random.randint(0, width - w), random.randint(0, height - h)
      return left, top, left + w, top + h
  return 0, 0, width, height  # the images are square


def _turn(picture, amount: float):
  from PIL import Image

  hue, saturation, value = picture.convert("HSV").split()
  turned = np.asarray(hue) + np.array(round(255 * amount)).astype(np.uint8)
  parts = (Image.fromarray(turned), saturation, value)
  return Image.merge("HSV", parts).convert("RGB")


def by_torchvision(count: int = COUNT) -> Step:
  """torchvision's transforms of PIL images."""
  import torch
  from PIL import Image
  from torchvision import transforms

  change: Callable = transforms.Compose(
    [
      transforms.RandomResizedCrop(SIZE, SCALE, RATIO),
      transforms.RandomHorizontalFlip(FLIP),
      transforms.RandomApply([transforms.ColorJitter(**STRENGTH)], JITTER),
      transforms.RandomGrayscale(GREY),
      transforms.ToTensor(),
      transforms.Normalize(MEAN, STD),
    ]
  )
  pictures = [Image.fromarray(x) for x in images(count)]
  return Step(run=lambda: torch.stack([change(x) for x in pictures]))


def cases() -> list[Case]:
  """The rows; torchvision's only where it is installed."""
  rows = [
    Case("jlejepa.views, one program", "benchmarks.views:ours"),
    Case("PIL, image by image", "benchmarks.views:by_pil", peer=True),
  ]
  if importlib.util.find_spec("torchvision"):
    name = "torchvision, image by image"
    rows.append(Case(name, "benchmarks.views:by_torchvision", peer=True))
  else:
    print("peer absent: torchvision, from PyPI. PIL's row follows.")
  return rows


def main() -> None:
  flags = harness.parser(__doc__.splitlines()[0]).parse_args()
  title = f"{COUNT} views of {SIZE}x{SIZE}"
  harness.table(title, cases(), flags, target=TARGET)


if __name__ == "__main__":
  main()
