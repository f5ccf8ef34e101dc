"""Load a config file, override its keys, check its keys and values.

A config file is Python and is executed: load only files that you trust.
"""

import difflib
import traceback
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from ml_collections import ConfigDict

from jlejepa.runtime.errors import UserError, require
from jlejepa.runtime.values import parse_value


def load_config(spec: str, overrides: Iterable[str] = ()) -> ConfigDict:
  """Loads `path.py[:arg]` by calling its `get_config(arg)`, and locks it.

  The path is absolute, or relative to the working directory, to the
  repository's `configs/` folder or to the copy inside an installed package;
  a leading `configs/` may be left out.

  Args:
    spec: the file and, after a colon, the variant to ask `get_config` for.
    overrides: texts such as `"train.batch_size=16"`.

  Raises:
    UserError: if the file is missing or fails, or an override does not fit.
  """
  if spec.endswith(".py"):
    name, arg = spec, None
  else:
    head, separator, arg = spec.partition(".py:")
    name = head + ".py"
    require(separator, f"config {spec!r} must read FILE.py or FILE.py:VARIANT")
  path = _find(name)
  module = ModuleType(path.stem)
  module.__file__ = str(path)
  try:
    code = compile(path.read_text(encoding="utf-8"), str(path), "exec")
    exec(code, module.__dict__)
    get_config = module.__dict__.get("get_config")
    require(callable(get_config), f"{path} defines no get_config(arg)")
    config = get_config() if arg is None else get_config(arg)
  except Exception as error:
    raise UserError(f"config {spec}: {_where(error, path)}{error}") from error
  require(
    isinstance(config, ConfigDict),
    f"config {spec}: get_config returned a {type(config).__name__}, "
    "not an ml_collections.ConfigDict",
  )
  config.lock()
  for override in overrides:
    key, separator, text = override.partition("=")
    require(separator, f"override {override!r} must read KEY=VALUE")
    apply_override(config, key, text)
  return config


def apply_override(config: ConfigDict, key: str, text: str) -> None:
  """Sets one dotted key of a config from a text, keeping the key's type.

  Raises:
    UserError: if there is no such key, or the text does not read as its type.
  """
  flat = flatten(config)
  name = f"config.{key}"
  if key not in flat:
    section = any(known.startswith(f"{key}.") for known in flat)
    require(not section, f"{name} is a section: set one of its keys")
    hint = suggestion(key, flat, "config.") or "; --help lists the keys"
    raise UserError(f"no key {name}{hint}")
  *sections, leaf = key.split(".")
  for section in sections:
    config = config[section]
  kind = config.get_type(leaf)
  config[leaf] = parse_value(name, text, kind, config[leaf])


def flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
  """Returns the values of nested mappings under dotted keys, in order."""
  flat = {}
  for key, value in config.items():
    if isinstance(value, ConfigDict | Mapping):
      flat.update(flatten(value, f"{prefix}{key}."))
    else:
      flat[prefix + key] = value
  return flat


def validate(config: ConfigDict, schema: Mapping[str, Any]) -> None:
  """Checks that a config has exactly a schema's keys, with fitting values.

  Args:
    config: what a user wrote, in a file or in Python.
    schema: nested mappings or dotted keys to rules. A rule is a type (`float`
      takes integers and refuses nan and infinities; None fits no type: wrap
      it in `optional`) or a function `(name, value)` that raises `UserError`,
      such as `finite_positive`.

  Raises:
    UserError: naming the first unknown or missing key or the first bad value.
  """
  rules, values = flatten(schema), flatten(config)
  for key in values:
    if key not in rules:
      raise UserError(f"no key config.{key}{suggestion(key, rules, 'config.')}")
  for key, rule in rules.items():
    require(key in values, f"config.{key} is missing from the config")
    value = values[key]
    if isinstance(rule, type):
      _check_type(f"config.{key}", value, rule)
    else:
      rule(f"config.{key}", value)


def suggestion(name: str, known: Iterable[str], prefix: str = "") -> str:
  """Returns `"; did you mean ..."` for the closest known name, or nothing."""
  known = list(known)
  close = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
  if not close:
    # `lr` for `optimizer.lr`: right word, section forgotten.
    leaves = {key.rpartition(".")[2]: key for key in known}
    leaf = name.rpartition(".")[2]
    found = difflib.get_close_matches(leaf, leaves, n=1, cutoff=0.6)
    close = [leaves[match] for match in found]
  return f"; did you mean {prefix}{close[0]}?" if close else ""


def _check_type(name: str, value: Any, kind: type) -> None:
  if kind is float:
    fits = isinstance(value, int | float) and not isinstance(value, bool)
    fits = fits and abs(value) < float("inf")
    wanted = "a finite number"
  elif kind is int:
    fits = isinstance(value, int) and not isinstance(value, bool)
    wanted = "an integer"
  else:
    fits = isinstance(value, kind)
    wanted = f"a {kind.__name__}"
  require(fits, f"{name} must be {wanted}, got {value!r}")


def _find(name: str) -> Path:
  path = Path(name).expanduser()
  folders = [Path(), Path(__file__).parent / "configs"]
  root = Path(__file__).parents[2]
  # Site-packages may hold a foreign `configs` folder.
  if (root / "pyproject.toml").is_file():
    folders.insert(1, root / "configs")
  inner = Path(*path.parts[1:]) if path.parts[0] == "configs" else path
  for candidate in [path, *(folder / inner for folder in folders[1:])]:
    if candidate.is_file():
      return candidate.absolute()
  near = [p.name for folder in folders[1:] for p in sorted(folder.glob("*.py"))]
  hint = suggestion(path.name, near)
  if not hint and near:
    hint = "; there are " + ", ".join(dict.fromkeys(near))
  raise UserError(f"no config file {name!r}{hint}")


def _where(error: Exception, path: Path) -> str:
  if isinstance(error, UserError):
    return ""
  # A ValueError is how get_config refuses a variant: its text is for the user.
  if type(error) is ValueError:
    return ""
  frames = traceback.extract_tb(error.__traceback__)
  lines = [frame.lineno for frame in frames if frame.filename == str(path)]
  line = f"line {lines[-1]}: " if lines else ""
  return f"{line}{type(error).__name__}: "
