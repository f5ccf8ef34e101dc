"""A bad update that a run has kept is made again, and found out."""

import shutil

import jax
import numpy as np
import pytest

import jlejepa
from jlejepa import rerun
from jlejepa.data import from_arrays
from jlejepa.encoders import from_function
from jlejepa.runtime.config import load_config
from jlejepa.runtime.errors import UserError
from jlejepa.runtime.nonfinite import NonFiniteError
from jlejepa.views import Views


@pytest.fixture(scope="module")
def parts():
  """Vectors with labels, and a linear map as their encoder."""
  x = np.random.default_rng(0).normal(size=(128, 5)).astype(np.float32)

  def init(key, x):
    return {"w": jax.random.normal(key, (x.shape[-1], 6))}

  encoder = from_function(init, lambda p, x: x @ p["w"])
  return dict(dataset=from_arrays(x, np.arange(128) % 2), encoder=encoder)


def views(key, example):
  noisy = example + 0.1 * jax.random.normal(key, (2, 5))
  return Views(noisy, noisy[:0])


def bad_views(key, example):
  good = views(key, example)
  return good._replace(global_=jax.numpy.sqrt(-1 - good.global_**2))


@pytest.fixture(scope="module")
def ended(parts, tmp_path_factory):
  """The folder of a run that bad gradients have ended."""
  workdir = tmp_path_factory.mktemp("run")
  config = load_config(
    "lejepa.py:debug",
    ["train.epochs=6", "runtime.log_every=12", "loss.average=0.9"],
  )
  with pytest.raises(NonFiniteError):
    jlejepa.fit(config, str(workdir), views=bad_views, quiet=True, **parts)
  return workdir


@pytest.mark.slow
def test_nan_is_found_where_it_begins(parts, ended):
  with pytest.raises(FloatingPointError, match="sqrt"):
    rerun.rerun(ended, views=bad_views, **parts)


def test_with_the_cause_mended_the_same_inputs_are_finite(parts, ended):
  first = rerun.rerun(ended, views=views, **parts)
  assert np.isfinite(list(first.values())).all()
  assert {"loss", "probe_loss", "grad_norm"} <= set(first)
  assert first == rerun.rerun(ended, views=views, **parts)


def test_other_data_is_refused_by_name(parts, ended):
  other = from_arrays(np.zeros((128, 4), np.float32), np.arange(128) % 2)
  with pytest.raises(UserError, match=r"images is float32.* wanted float32"):
    rerun.rerun(
      ended,
      dataset=other,
      encoder=parts["encoder"],
      views=lambda key, x: Views(x[None], x[None, :0]),
    )


def test_the_command_says_in_one_line_that_nothing_is_kept(
  ended, tmp_path, capsys
):
  shutil.copy(ended / "config.json", tmp_path)
  for workdir, words in (
    (tmp_path, "no bad update"),
    (tmp_path / "x", "no run"),
  ):
    with pytest.raises(SystemExit) as leaving:
      rerun.run([f"--workdir={workdir}"])
    assert leaving.value.code == 2
    text = capsys.readouterr().err
    assert words in text and text.count("\n") == 1
