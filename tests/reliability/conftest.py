"""What the tests of this folder share: its scripts, toy runs, small disks."""

import importlib
import resource
import runpy
import signal
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from jplanet import report, setup
from jplanet.envs import Lockstep
from jplanet.train import fit
from jplanet.types import WorldModel

HERE = Path(__file__).parent


@pytest.fixture(scope="session")
def tool():
  """Imports a script of this folder by its name."""

  def load(name):
    with pytest.MonkeyPatch.context() as monkeypatch:
      monkeypatch.syspath_prepend(str(HERE))
      return importlib.import_module(name)

  return load


@pytest.fixture(scope="session")
def borrow():
  """Returns what another file of tests defines: `borrow(file, name)`."""
  return lambda file, name: runpy.run_path(str(HERE.parent / file))[name]


@pytest.fixture(scope="session")
def toy_model():
  """A world model of two weights, which learn the mean reward.

  It compiles in no time. Its agent rewards an action with its value.
  """

  def loss(params, batch, key):
    value = 0.5 * jnp.square(params["w"] - batch.reward.mean()).sum()
    return value, {"loss": value}

  return WorldModel(
    init=lambda key, images=None: {"w": jnp.zeros(2)},
    initial=lambda: jnp.zeros(1),
    encode=lambda params, image, key: image.mean(),
    observe=lambda params, state, action, embed, key: state,
    imagine=lambda params, state, action, key: action,
    reward=lambda params, state: state.sum(),
    decode=None,
    features=lambda state: state,
    loss=loss,
  )


@pytest.fixture
def toy_fit(toy_model, tiny_config, dial, monkeypatch):
  """Trains `toy_model` on `Dial`: `toy_fit(folder, *overrides, **options)`.

  `change`, an option, is called with the configuration.
  """
  monkeypatch.setattr(setup, "make_planet", lambda *args, **kwargs: toy_model)
  monkeypatch.setattr(report, "write_pictures", lambda *args: {})

  def train(folder, *overrides, change=lambda config: None, **options):
    config = tiny_config(*overrides)
    change(config)
    return fit(config, folder, **{"env": dial, "quiet": True} | options)

  return train


@pytest.fixture
def limit_files():
  """Limits the size of files, as a full disk would; None takes it away."""
  soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
  # The signal would end the process in place of failing the write.
  handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
  limit = lambda size: resource.setrlimit(
    resource.RLIMIT_FSIZE, (soft if size is None else size, hard)
  )
  yield limit
  limit(None)
  signal.signal(signal.SIGXFSZ, handler)


@pytest.fixture(scope="session")
def losing():
  """Two environments, the second lost at the fifth step of the first try."""

  class Losing(Lockstep):
    steps = 0

    def reset(self, seeds):
      self.lost = np.zeros(2, bool)
      return super().reset(seeds)

    def step(self, actions):
      self.steps += 1
      images, rewards, _ = super().step(actions)
      if self.steps == 5:
        self.lost, rewards[1] = np.array([False, True]), 0
        self._done |= self.lost
      return images, rewards, self._done.copy()

  return Losing
