"""Pictures: the numbers in them, and the words and panels on them."""

import re
import subprocess
import sys

import numpy as np
import pytest

from jlejepa import pictures
from jlejepa.pictures import principal_colours

pytest.importorskip("matplotlib")


def _words(path):
  """Texts of an SVG: matplotlib leaves each in it as a comment."""
  return re.findall("<!-- (.*?) -->", path.read_text(), re.S)


def _panels(path):
  return path.read_text().count('<g id="axes_')


def test_colours_separate_the_halves_of_a_constructed_map():
  rng = np.random.default_rng(0)
  tokens = 0.1 * rng.normal(size=(6, 8, 16))
  tokens[:, :4, 5] += 10
  colours = principal_colours(tokens)
  assert colours.shape == (6, 8, 3)
  # The positive weight is on channel 5, so that the left half is red.
  assert (colours[:, :4, 0] > 0.9).all() and (colours[:, 4:, 0] < 0.1).all()
  np.testing.assert_allclose(colours.min(axis=(0, 1)), 0, atol=1e-12)
  np.testing.assert_allclose(colours.max(axis=(0, 1)), 1)


def test_colours_are_scikit_learns_components():
  from sklearn.decomposition import PCA

  tokens = np.random.default_rng(0).normal(size=(5, 5, 7)) * np.arange(1, 8)
  scores = PCA(3).fit_transform(tokens.reshape(25, 7))
  wanted = (scores - scores.min(0)) / np.ptp(scores, axis=0)
  found = principal_colours(tokens).reshape(25, 3)
  for i in range(3):
    # Signs are a convention.
    error = np.abs(found[:, i] - wanted[:, i]).max()
    mirrored = np.abs(1 - found[:, i] - wanted[:, i]).max()
    assert min(error, mirrored) < 1e-9


def test_colours_of_few_or_equal_tokens_are_black_where_nothing_varies():
  assert (principal_colours(np.ones((4, 4, 8))) == 0).all()
  line = np.arange(4.0).reshape(2, 2, 1)
  found = principal_colours(line)
  np.testing.assert_allclose(found[..., 0].ravel(), [0, 1 / 3, 2 / 3, 1])
  assert (found[..., 1:] == 0).all()


@pytest.mark.parametrize("channels", [1, 3])
def test_tokens_are_drawn_below_their_images(tmp_path, channels):
  rng = np.random.default_rng(0)
  images = rng.integers(256, size=(10, 8, 8, channels), dtype=np.uint8)
  out = pictures.token_colours(
    tmp_path / "plots" / "t.svg", images, rng.normal(size=(10, 4, 5, 6))
  )
  assert _panels(out) == 2 * 2 * 8
  words = _words(out)
  assert words.count("image") == words.count("tokens") == 2
  assert any("4 x 5 tokens" in word for word in words)


def test_histograms_find_the_least_and_the_most_gaussian_direction(tmp_path):
  rng = np.random.default_rng(0)
  z = rng.normal(size=(500, 4)).astype(np.float32)
  z[:, 0] = np.sign(z[:, 0]) * 2  # two points, far from a Gaussian
  out = pictures.projection_histograms(tmp_path / "h.svg", z, searched=200)
  text = "\n".join(_words(out))
  assert _panels(out) == 8
  scores = [float(x) for x in re.findall(r"EP ([\d.]+)", text)]
  assert len(scores) == 8
  *usual, worst, best = scores
  assert best <= min(usual) and worst >= max(usual) and worst > 100
  assert "least Gaussian of 200" in text
  assert "500 embeddings of 4 dimensions" in text


def test_histograms_of_collapsed_embeddings_can_be_drawn(tmp_path):
  z = np.zeros((50, 3), np.float32)
  out = pictures.projection_histograms(tmp_path / "h.svg", z, searched=8)
  assert "\n".join(_words(out)).count("std 0\n") == 8


def test_neighbours_stand_in_order_with_their_names(tmp_path):
  images = np.zeros((6, 4, 4, 3), np.uint8)
  out = pictures.neighbour_rows(
    tmp_path / "n.svg",
    images[:2],
    images.reshape(2, 3, 4, 4, 3),
    ["cat", "dog"],
    [["cat", "cow", "cat"], ["dog", "dog", "owl"]],
  )
  words = _words(out)
  names = [word for word in words if word in ("cat", "cow", "dog", "owl")]
  assert names == ["cat", "cat", "cow", "cat", "dog", "dog", "dog", "owl"]
  assert _panels(out) == 8
  # The two of another class, and nothing else, are in the colour of warning.
  assert out.read_text().count(f"fill: {pictures._RED.lower()}") == 2


def test_neighbours_without_labels_can_be_drawn(tmp_path):
  images = np.zeros((2, 4, 4, 1))
  out = pictures.neighbour_rows(
    tmp_path / "n.svg", images, images[None][[0, 0]]
  )
  assert not any("class" in word for word in _words(out))


def _row(epoch, **more):
  names = ("prediction", "sigreg_excess", "effective_rank", "probe_accuracy")
  return {"step": 10 * epoch, "epoch": epoch} | dict.fromkeys(names, 0.5) | more


def test_curves_have_a_panel_for_what_was_measured(tmp_path):
  rows = [_row(1), _row(2, probe_linear=0.4, prediction=float("nan"))]
  out = pictures.training_curves(tmp_path / "c.svg", rows)
  words = _words(out)
  assert _panels(out) == 4
  titles = ["Prediction loss", "Accuracy (%)", "epoch", "ridge, frozen, test"]
  assert set(titles) < set(words)
  assert "neighbours, frozen, test" not in words
  bare = [{"step": 1, "prediction": 0.3}]
  out = pictures.training_curves(tmp_path / "d.svg", bare)
  assert _panels(out) == 1 and "step" in _words(out)


def test_a_column_has_the_finite_numbers_where_they_were_measured():
  rows = [
    {"step": 1, "a": 2.0},
    {"step": 2},
    {"step": 3, "a": float("nan")},
    {"step": 4, "a": None},
    {"a": 1.0},
    {"step": 6, "a": 7},
  ]
  assert pictures._column(rows, "step", "a").tolist() == [[1, 2], [6, 7]]


def test_a_run_without_rows_is_refused(tmp_path):
  with pytest.raises(ValueError, match="has not logged a row yet"):
    pictures.training_curves(tmp_path / "c.png", [])


def test_drawing_leaves_pyplot_alone_and_importing_needs_no_matplotlib(
  tmp_path,
):
  code = (
    "import sys\nfrom jlejepa import pictures\n"
    "assert 'matplotlib' not in sys.modules\n"
    f"pictures.training_curves({str(tmp_path / 'p.png')!r},"
    " [{'step': 1, 'prediction': 1.0}])\n"
    "assert 'matplotlib.pyplot' not in sys.modules"
  )
  subprocess.run([sys.executable, "-c", code], check=True)
  assert (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")
