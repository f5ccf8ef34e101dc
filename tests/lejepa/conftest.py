"""What tests share: the official package's values, refusals in one line."""

import json
import pathlib
from typing import Any, NamedTuple

import numpy as np
import pytest

from jlejepa.runtime.errors import UserError

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


@pytest.fixture(scope="session")
def refused():
  """Expects a `UserError` of one line."""

  def expect(match, call, *args, **kwargs):
    with pytest.raises(UserError, match=match) as caught:
      call(*args, **kwargs)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500

  return expect
