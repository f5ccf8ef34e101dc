"""Errors that a user can act on, and the checks that raise them."""

import contextlib
import math
import numbers
import sys
from collections.abc import Callable, Iterator
from typing import Any

EXIT_USER_ERROR = 2

Check = Callable[[str, Any], None]


class UserError(ValueError):
  """Reports bad input in one line: what was wrong, wanted, and to be done."""

  def __str__(self) -> str:
    # A key, a path or a foreign message in it may bring line breaks.
    return " ".join(super().__str__().split())


@contextlib.contextmanager
def exit_on_user_error() -> Iterator[None]:
  """Turns a `UserError` into one line on stderr and exit code 2.

  Wraps the entry points: `@exit_on_user_error()` above `run`, or a `with`
  block. Any other exception passes with its traceback, since it is our defect.

  Raises:
    SystemExit: with code 2, for a `UserError`.
  """
  try:
    yield
  except UserError as error:
    print(f"error: {error}", file=sys.stderr)
    sys.stderr.flush()
    raise SystemExit(EXIT_USER_ERROR) from None


def require(condition: Any, message: str) -> None:
  """Raises `UserError(message)` unless the condition holds."""
  if not condition:
    raise UserError(message)


def any_value(name: str, value: Any) -> None:
  """Leaves a value to checks of its own."""
  del name, value


def finite_positive(name: str, value: Any) -> None:
  """Requires a real number in `(0, inf)`."""
  require(
    _is_real(value) and math.isfinite(value) and value > 0,
    f"{name} must be a finite number above 0, got {value!r}",
  )


def finite_nonnegative(name: str, value: Any) -> None:
  """Requires a real number in `[0, inf)`."""
  require(
    _is_real(value) and math.isfinite(value) and value >= 0,
    f"{name} must be a finite number of at least 0, got {value!r}",
  )


def fraction(name: str, value: Any) -> None:
  """Requires a real number in `[0, 1]`."""
  require(
    _is_real(value) and 0 <= value <= 1,
    f"{name} must be a number from 0 to 1, got {value!r}",
  )


def positive_int(name: str, value: Any) -> None:
  """Requires an integer of at least 1."""
  require(
    _is_int(value) and value > 0,
    f"{name} must be an integer of at least 1, got {value!r}",
  )


def nonnegative_int(name: str, value: Any) -> None:
  """Requires an integer of at least 0."""
  require(
    _is_int(value) and value >= 0,
    f"{name} must be an integer of at least 0, got {value!r}",
  )


def one_of(*choices: Any) -> Check:
  """Returns a check that requires one of the choices."""

  def check(name: str, value: Any) -> None:
    listed = ", ".join(repr(choice) for choice in choices)
    require(value in choices, f"{name} must be one of {listed}; got {value!r}")

  return check


def optional(check: Check) -> Check:
  """Returns a check that also lets None pass."""

  def either(name: str, value: Any) -> None:
    if value is not None:
      check(name, value)

  return either


def _is_real(value: Any) -> bool:
  # bool is an int in Python: `steps=True` is a mistake, not a 1.
  return isinstance(value, numbers.Real) and not isinstance(value, bool)


def _is_int(value: Any) -> bool:
  return isinstance(value, numbers.Integral) and not isinstance(value, bool)
