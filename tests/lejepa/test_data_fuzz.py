"""Damaged files by the hundred: set aside or refused, and nothing else."""

import io
import warnings

import numpy as np
import pytest
from PIL import Image

from jlejepa.data import load_dataset
from jlejepa.data.decoding import BadImage, decode, measure
from jlejepa.runtime.errors import UserError

PICTURE = np.random.default_rng(0).integers(0, 256, (12, 10, 3), np.uint8)
FORMATS = {
  "png": {}, "jpg": dict(quality=80), "gif": {}, "bmp": {}, "webp": {},
  "tif": dict(compression="tiff_lzw"), "ppm": {},
}  # fmt: skip


def damaged(rng, whole):
  """Returns a file's bytes with a few changed, removed or added."""
  data = bytearray(whole)
  for _ in range(rng.integers(1, 5)):
    place = int(rng.integers(max(len(data), 1)))
    # Headers are short, and what they say matters more.
    place = place if rng.random() < 0.5 else int(rng.integers(60))
    place = max(min(place, len(data) - 1), 0)
    kind = rng.integers(5) if data else 3
    if kind == 0:
      data[place] = int(rng.integers(256))
    elif kind == 1:
      data[place] ^= 1 << int(rng.integers(8))
    elif kind == 2:
      data[place : place + 4] = rng.choice(
        [b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x7f\xff\xff\xff", b""]
      )
    elif kind == 3:
      data[place:place] = rng.bytes(int(rng.integers(1, 9)))
    else:
      data = data[: max(place, 1)]
  return bytes(data)


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_damaged_image_decodes_or_is_bad(tmp_path, suffix):
  exif = Image.Exif()
  exif[0x0112] = 6
  whole = io.BytesIO()
  options = FORMATS[suffix] | ({"exif": exif} if suffix != "gif" else {})
  kind = {"jpg": "JPEG", "tif": "TIFF"}.get(suffix, suffix.upper())
  Image.fromarray(PICTURE).save(whole, kind, **options)
  rng = np.random.default_rng(1)
  path = tmp_path / f"x.{suffix}"
  outcomes = set()
  with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    for _ in range(150):
      path.write_bytes(damaged(rng, whole.getvalue()))
      for call in (measure, decode, lambda p: decode(p, size=4)):
        try:
          found = call(path)
        except BadImage as error:
          assert str(error) and "\n" not in str(error)
          outcomes.add("bad")
        else:
          if call is not measure:
            assert found.dtype == np.uint8 and found.shape[2] == 3
          outcomes.add("good")
  assert "bad" in outcomes


def test_a_folder_of_damaged_images_loads_or_is_refused(tmp_path):
  rng = np.random.default_rng(2)
  whole = io.BytesIO()
  Image.fromarray(PICTURE).save(whole, "PNG")
  for i in range(160):
    data = whole.getvalue() if i % 2 else damaged(rng, whole.getvalue())
    folder = tmp_path / "ab"[i // 2 % 2]
    folder.mkdir(exist_ok=True)
    (folder / f"{i:03d}.png").write_bytes(data)
  data = load_dataset(tmp_path, size=8, holdout=0)
  assert len(data.images) + len(data.left_out) == 160
  assert 20 < len(data.left_out) <= 80
  assert len(data.labels) == len(data.images)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed, np.save])
def test_a_damaged_archive_loads_or_is_refused(tmp_path, save):
  rng = np.random.default_rng(3)
  whole = io.BytesIO()
  if save is np.save:
    save(whole, PICTURE)
    path = tmp_path / "x.npy"
  else:
    save(whole, images=PICTURE[None].repeat(6, 0), labels=np.arange(6) % 2)
    path = tmp_path / "x.npz"
  outcomes = set()
  for _ in range(200):
    path.write_bytes(damaged(rng, whole.getvalue()))
    try:
      data = load_dataset(path, holdout=0, max_bytes=2**20)
    except UserError as error:
      assert "\n" not in str(error)
      outcomes.add("bad")
    else:
      assert len(data.images) > 1
      outcomes.add("good")
  assert outcomes >= {"bad"}
