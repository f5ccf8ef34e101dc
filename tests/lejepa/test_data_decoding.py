"""One image file: formats, colours, orientation, resizing."""

import numpy as np
import pytest
from PIL import Image

from jlejepa.data.decoding import BadImage, decode, measure

RNG = np.random.default_rng(0)


def smooth(height, width, shift=0):
  """A picture that JPEG and resizing change little, uint8 `[H, W, 3]`."""
  y, x = np.mgrid[0:height, 0:width]
  waves = [np.sin(x / 9 + shift), np.cos(y / 7 - shift), np.sin((x + y) / 11)]
  return np.rint(127.5 + 100 * np.stack(waves, -1)).astype(np.uint8)


def pixels_of(image, suffix, tmp_path, **options):
  path = tmp_path / f"x{suffix}"
  image.save(path, **options)
  assert measure(path) == decode(path).shape[1::-1]
  return decode(path)


RGB = smooth(24, 32)


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif", ".ppm"])
def test_lossless_formats(tmp_path, suffix):
  np.testing.assert_array_equal(
    pixels_of(Image.fromarray(RGB), suffix, tmp_path), RGB
  )


@pytest.mark.parametrize("suffix", [".jpg", ".webp"])
def test_lossy_formats(tmp_path, suffix):
  found = pixels_of(Image.fromarray(RGB), suffix, tmp_path, quality=95)
  assert np.abs(found.astype(int) - RGB).mean() < 3


def test_colour_models_become_rgb(tmp_path):
  image = Image.fromarray(RGB)
  grey = image.convert("L")
  as_rgb = np.repeat(np.asarray(grey)[..., None], 3, -1)
  for other in (grey, grey.convert("LA")):
    np.testing.assert_array_equal(pixels_of(other, ".png", tmp_path), as_rgb)
  alpha = image.copy()
  alpha.putalpha(100)
  np.testing.assert_array_equal(pixels_of(alpha, ".png", tmp_path), RGB)
  few = (RGB // 128) * 255  # eight colours
  palette = Image.fromarray(few).quantize(8)
  exact = np.asarray(palette.convert("RGB"))
  np.testing.assert_array_equal(pixels_of(palette, ".png", tmp_path), exact)
  found = pixels_of(palette, ".png", tmp_path, transparency=b"\x00\x80")
  np.testing.assert_array_equal(found, exact)
  frames = [palette, Image.fromarray(few[::-1]).quantize(8)]
  found = pixels_of(
    frames[0], ".gif", tmp_path, save_all=True, append_images=frames[1:]
  )
  np.testing.assert_array_equal(found, exact)
  bits = grey.point(lambda v: 255 * (v > 127)).convert("1")
  found = pixels_of(bits, ".png", tmp_path)
  np.testing.assert_array_equal(found[..., 0], np.asarray(bits) * 255)
  cmyk = pixels_of(image.convert("CMYK"), ".jpg", tmp_path, quality=95)
  assert np.abs(cmyk.astype(int) - RGB).mean() < 6
  wide = np.asarray(grey).astype(np.uint16) * 257
  found = pixels_of(Image.fromarray(wide), ".png", tmp_path)
  np.testing.assert_array_equal(found, as_rgb)
  Image.fromarray(np.asarray(grey) / np.float32(3)).save(tmp_path / "f.tif")
  with pytest.raises(BadImage, match="floating-point"):
    decode(tmp_path / "f.tif")
  assert decode(tmp_path / "x.png", channels=1).shape == (24, 32, 1)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif", ".webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(tmp_path, suffix, orientation):
  upright = {
    1: lambda x: x,
    2: lambda x: x[:, ::-1],
    3: lambda x: x[::-1, ::-1],
    4: lambda x: x[::-1],
    5: lambda x: x.transpose(1, 0, 2),
    6: lambda x: np.rot90(x, -1),
    7: lambda x: x[::-1, ::-1].transpose(1, 0, 2),
    8: lambda x: np.rot90(x, 1),
  }[orientation](RGB)
  exif = Image.Exif()
  exif[0x0112] = orientation
  found = pixels_of(Image.fromarray(RGB), suffix, tmp_path, exif=exif)
  assert found.shape == upright.shape
  assert np.abs(found.astype(int) - upright).mean() < 4


@pytest.mark.parametrize("shape", [(120, 90), (90, 120), (40, 200), (20, 20)])
@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_resizing_is_antialiased_and_central(tmp_path, shape, suffix):
  picture = RNG.integers(0, 256, (*shape, 3), np.uint8)
  picture = smooth(*shape) // 2 + picture // 2
  path = tmp_path / f"x{suffix}"
  Image.fromarray(picture).save(path)
  found, picture = decode(path, size=16).astype(float), decode(path)
  # The same by areas: cut out the square, then average over windows.
  side = min(shape)
  top, left = (shape[0] - side) // 2, (shape[1] - side) // 2
  square = picture[top : top + side, left : left + side].astype(float)
  fine = np.kron(square, np.ones((16, 16, 1)))
  expected = fine.reshape(16, side, 16, side, 3).mean((1, 3))
  assert found.shape == (16, 16, 3)
  # Without antialiasing the noise alone makes 30.
  assert np.abs(found - expected).mean() < 9
