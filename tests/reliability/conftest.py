"""The scripts of this folder, for its tests."""

import importlib
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def tool():
  """Imports a script of this folder by its name."""

  def load(name):
    with pytest.MonkeyPatch.context() as monkeypatch:
      monkeypatch.syspath_prepend(str(Path(__file__).parent))
      return importlib.import_module(name)

  return load
