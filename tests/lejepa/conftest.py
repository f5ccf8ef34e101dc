"""Finds the values computed with the official LeJEPA package."""

import json
import pathlib
from typing import Any, NamedTuple

import numpy as np
import pytest

FOLDER = pathlib.Path(__file__).parents[2].parent / "shared" / "reference"


class Reference(NamedTuple):
  """`values` as the json file nests them, `arrays` by name."""

  values: dict[str, Any]
  arrays: dict[str, np.ndarray]


@pytest.fixture(scope="session")
def reference() -> Reference:
  """Loads the reference, or skips where it is absent."""
  path = FOLDER / "lejepa.json"
  if not path.exists():
    pytest.skip("no reference values in ../shared/reference")
  with np.load(FOLDER / "lejepa.npz") as arrays:
    return Reference(json.loads(path.read_text()), dict(arrays))
