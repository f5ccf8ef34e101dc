import math

import pytest

from jlejepa.runtime.errors import (
  UserError,
  exit_on_user_error,
  finite_nonnegative,
  finite_positive,
  fraction,
  nonnegative_int,
  one_of,
  optional,
  positive_int,
)


@pytest.mark.parametrize(
  "check, good, bad",
  [
    (finite_positive, [1, 1e-9], [0, -1, math.inf, "1", None, True]),
    (finite_nonnegative, [0, 2.5], [-1e-9, math.nan, math.inf]),
    (fraction, [0, 0.5, 1], [-0.1, 1.1, math.nan, "0.5"]),
    (positive_int, [1, 10], [0, -1, 1.0, True, "1"]),
    (nonnegative_int, [0, 3], [-1, 0.0, False]),
    (one_of(1, "a"), [1, "a"], [2, "b"]),
    (optional(positive_int), [None, 1], [0]),
  ],
)
def test_checks_accept_their_range_and_nothing_else(check, good, bad):
  for value in good:
    check("x", value)
  for value in bad:
    with pytest.raises(UserError, match=r"^x must be"):
      check("x", value)


def test_user_error_becomes_one_line_and_exit_code_two(capsys):
  @exit_on_user_error()
  def run():
    raise UserError("first\n  second")

  with pytest.raises(SystemExit) as exit:
    run()
  assert exit.value.code == 2
  assert capsys.readouterr().err == "error: first second\n"


def test_other_errors_keep_their_traceback():
  with pytest.raises(ZeroDivisionError), exit_on_user_error():
    1 / 0  # noqa: B018
