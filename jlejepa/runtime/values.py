"""Read one command-line value as the type that the config's default has."""

import ast
import math
from typing import Any

from jlejepa.runtime.errors import UserError

_TRUE = ("true", "t", "yes", "y", "1", "on")
_FALSE = ("false", "f", "no", "n", "0", "off")


def parse_value(name: str, text: str, kind: type, current: Any = None) -> Any:
  """Returns the value that a text stands for.

  Integers may be written `1000`, `1_000` or `1e3`; floats as Python writes
  them, finite; bools as true/false; tuples as `(1,2)`, `1,2` or `[1,2]` with
  items of the default's item type; `none` empties a placeholder.

  Args:
    name: how the value is called in an error.
    text: what the user wrote.
    kind: the type to read; `NoneType` takes any Python literal, else a string.
    current: the default, from which a tuple takes its item type.

  Raises:
    UserError: if the text does not read as the type.
  """
  if current is None and text.lower() == "none":
    return None
  readers = {bool: _bool, int: _int, float: _float, type(None): _literal}
  if kind is str:
    return text
  if kind in (tuple, list):
    return _items(name, text, current)
  if kind not in readers:
    raise UserError(f"{name} is a {kind.__name__}: set it in the config file")
  try:
    return readers[kind](text)
  except (ValueError, OverflowError):
    wanted = {
      bool: "true or false",
      int: "an integer",
      float: "a finite number",
    }
    raise UserError(f"{name} must be {wanted[kind]}, got {text!r}") from None


def _bool(text: str) -> bool:
  if text.lower() in _TRUE:
    return True
  if text.lower() in _FALSE:
    return False
  raise ValueError


def _int(text: str) -> int:
  try:
    return int(text)
  except ValueError:
    value = float(text)
    if not value.is_integer():
      raise
    return int(value)


def _float(text: str) -> float:
  value = float(text)
  # A learning rate of nan would train for hours before anyone looks.
  if not math.isfinite(value):
    raise ValueError
  return value


def _literal(text: str) -> Any:
  try:
    value = ast.literal_eval(text)
  except (ValueError, SyntaxError):
    return text
  return tuple(value) if isinstance(value, list) else value


def _items(name: str, text: str, current: Any) -> tuple:
  inner = text.strip()
  if inner[:1] + inner[-1:] in ("()", "[]"):
    inner = inner[1:-1]
  # `ast` would refuse bare words, and depth="(a,b)" should not need quotes
  # within quotes.
  parts = [part.strip().strip("'\"") for part in inner.split(",")]
  if parts and not parts[-1]:
    parts.pop()
  if any(part[:1] in ("(", "[") for part in parts):
    nested = _literal(inner + ",")
    if not isinstance(nested, tuple):
      raise UserError(f"{name} must be a tuple such as (1, 2), got {text!r}")
    return nested
  kinds = {type(item) for item in current or ()}
  if kinds == {int, float}:
    kinds = {float}
  if len(kinds) == 1:
    kind = kinds.pop()
    return tuple(parse_value(f"an item of {name}", p, kind) for p in parts)
  return tuple(_literal(part) for part in parts)
