"""The parts of a run, from its configuration."""

import numpy as np
import pytest

import jlejepa
from jlejepa import univariate
from jlejepa.check import check_config
from jlejepa.data import from_arrays
from jlejepa.runtime.config import load_config
from jlejepa.runtime.errors import UserError
from jlejepa.setup import SAMPLERS, build, loss_options

IMAGES = np.zeros((64, 8, 8, 1), np.uint8)


def config(*overrides):
  return load_config("lejepa.py:debug", overrides)


def test_the_trade_off_moves_with_the_batch_only_if_it_says_which_it_is_of():
  plain = loss_options(config("loss.lam=0.05"))
  assert plain.lam == 0.05
  # debug trains with batches of 64.
  scaled = loss_options(config("loss.lam=0.05", "loss.lam_batch=256"))
  assert scaled.lam == pytest.approx(0.2 / (0.2 + 0.95))
  assert scaled._replace(lam=0.05) == plain
  same = loss_options(config("loss.lam=0.05", "loss.lam_batch=64"))
  assert same.lam == pytest.approx(0.05)


def test_names_of_tests_and_directions_become_functions():
  options = loss_options(config())
  assert options.test is None
  assert options.sampler is jlejepa.random_directions
  for name in univariate.__all__:
    chosen = config(f"loss.test={name}")
    check_config(chosen)
    test = loss_options(chosen).test
    wanted = None if name == "epps_pulley" else getattr(univariate, name)
    assert test is wanted
  for name, sampler in SAMPLERS.items():
    options = loss_options(config(f"loss.directions={name}"))
    assert options.sampler is sampler


@pytest.mark.parametrize("labels", [None, np.full(64, -1)])
def test_supervised_training_needs_labels(labels):
  dataset = from_arrays(IMAGES, labels)
  build(config(), dataset)
  with pytest.raises(UserError) as error:
    build(config("train.supervised=true"), dataset)
  text = str(error.value)
  assert "config.train.supervised needs labels: arrays has none" in text
  assert "\n" not in text


def test_supervised_training_takes_some_labels():
  labels = np.where(np.arange(64) < 2, np.arange(64), -1)
  dataset = from_arrays(IMAGES, labels)
  assert build(config("train.supervised=true"), dataset).options.supervised
