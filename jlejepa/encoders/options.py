"""Checks of options, each with one line for whoever got it wrong."""

import difflib
from collections.abc import Iterable
from typing import Any

from jlejepa.dots import DOTS
from jlejepa.encoders.convolution import FORMS

DTYPES = ("float32", "bfloat16")


def check_choice(what: str, value: Any, choices: Iterable[Any]) -> None:
  """Raises ValueError, with the closest choice, unless `value` is one."""
  choices = list(choices)
  # 1 == True: an option that is a number takes no bool.
  if any(value == c and type(value) is type(c) for c in choices):
    return
  close = difflib.get_close_matches(str(value), map(str, choices), n=1)
  hint = f"; did you mean {close[0]!r}?" if close else ""
  listed = ", ".join(map(str, choices))
  raise ValueError(f"unknown {what} {value!r}: choose from {listed}{hint}")


def check_positive(**values: Any) -> None:
  """Raises ValueError unless every value is an integer of at least 1."""
  for name, value in values.items():
    if type(value) is not int or value < 1:
      raise ValueError(f"{name} must be an integer of at least 1, got {value}")


def check_drop_path(rate: float) -> None:
  """Raises ValueError unless a rate is in `[0, 1)`."""
  if not 0 <= rate < 1:
    raise ValueError(f"drop_path must be in [0, 1), got {rate}")


def check_precision(*, dot=None, dtype=None, form=None) -> None:
  """Raises ValueError for a precision or form that does not exist."""
  if dot is not None:
    check_choice("dot", dot, DOTS)
  if dtype is not None:
    check_choice("dtype", dtype, DTYPES)
  if form is not None:
    check_choice("form", form, FORMS)
