"""The command lines of both packages: flags in, values or one error line out.

`ml_collections.config_flags` answers an unknown key with a fifty-line
traceback, refuses `1e3` for an integer and takes nan for a learning rate, so
its syntax is read here.
"""

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from jlejepa.runtime.config import (
  apply_override,
  flatten,
  load_config,
  suggestion,
)
from jlejepa.runtime.errors import UserError, require
from jlejepa.runtime.values import parse_value


class Flags(NamedTuple):
  """What a training command was asked to do.

  Attributes:
    config: the locked config, overrides applied.
    workdir: the run folder as written.
    force: whether to take a folder that holds a run of another config.
  """

  config: ConfigDict
  workdir: str
  force: bool


def parse_flags(
  argv: Sequence[str] | None = None,
  *,
  default_spec: str,
  default_workdir: Callable[[ConfigDict], str] | None = None,
  prog: str = "train",
) -> Flags:
  """Reads a training command line.

  `--config=FILE.py[:ARG] --workdir=DIR --config.KEY=VALUE ... --force`, with
  `--flag VALUE`, `--switch` and `--noswitch` as absl has them. `--help` prints
  the flags and every key of the config with its value.

  Args:
    argv: the arguments without the program's name; None for `sys.argv[1:]`.
    default_spec: the config when there is no `--config`.
    default_workdir: gives the folder for a config when there is no `--workdir`;
      None demands one.
    prog: the command's name, for `--help`.

  Raises:
    UserError: for anything that cannot be read, with the closest match.
    SystemExit: with code 0, after `--help`.
  """
  given = split_flags(argv)
  spec, workdir, force, asked = default_spec, None, False, False
  overrides = []
  for name, text in given:
    if name == "config":
      spec = _needs(name, text)
    elif name == "workdir":
      workdir = _needs(name, text)
    elif name in ("force", "noforce"):
      force = _switch("force", name, text)
    elif name in ("help", "h", "helpfull"):
      asked = True
    else:
      overrides.append((name, text))
  config = load_config(spec)
  for name, text in overrides:
    _override(config, name, text)
  # No earlier: a config of the user's own may lack what names the folder.
  if workdir is None and default_workdir:
    workdir = default_workdir(config)
  if asked:
    print(_usage(prog, spec, workdir, config))
    raise SystemExit(0)
  require(workdir, "where to? Give a run folder with --workdir=DIR")
  return Flags(config, workdir, force)


def parse_options(
  argv: Sequence[str] | None = None,
  *,
  options: Mapping[str, Any],
  prog: str = "evaluate",
) -> ConfigDict:
  """Reads a command line of plain flags, `--episodes=10 --video`.

  Args:
    argv: the arguments without the program's name; None for `sys.argv[1:]`.
    options: names and defaults; a type in place of a default demands the flag.
    prog: the command's name, for `--help`.

  Returns:
    The values, as attributes.

  Raises:
    UserError: for an unknown flag, an unreadable value or a missing flag.
    SystemExit: with code 0, after `--help`.
  """
  values = dict(options)
  for name, text in split_flags(argv):
    if name in ("help", "h", "helpfull"):
      lines = [
        f"usage: {prog} [--FLAG=VALUE ...]",
        "",
        *map(_show, *zip(*options.items())),
      ]
      print("\n".join(lines))
      raise SystemExit(0)
    off = name.removeprefix("no") if name not in options else name
    if isinstance(options.get(off), bool):
      values[off] = _switch(off, name, text)
      continue
    if name not in options:
      raise UserError(f"unknown flag --{name}{suggestion(name, options, '--')}")
    default = options[name]
    kind = default if isinstance(default, type) else type(default)
    values[name] = parse_value(f"--{name}", _needs(name, text), kind, default)
  for name, value in values.items():
    require(not isinstance(value, type), f"the flag --{name}=... is missing")
  return ConfigDict(values)


def split_flags(argv: Iterable[str] | None) -> list[tuple[str, str | None]]:
  """Splits arguments into names and texts; None where no text was given.

  Raises:
    UserError: for an argument that belongs to no flag.
  """
  arguments = list(sys.argv[1:] if argv is None else argv)
  flags = []
  while arguments:
    argument = arguments.pop(0)
    name = argument.lstrip("-")
    require(
      argument.startswith("-") and name,
      f"unexpected argument {argument!r}: flags read --NAME=VALUE",
    )
    name, separator, text = name.partition("=")
    if separator:
      flags.append((name, text))
    elif arguments and not arguments[0].startswith("--"):
      flags.append((name, arguments.pop(0)))
    else:
      flags.append((name, None))
  return flags


def _override(config: ConfigDict, name: str, text: str | None) -> None:
  flat = flatten(config)
  key = name.removeprefix("config.")
  if name.startswith("noconfig.") and text is None:
    negated = name.removeprefix("noconfig.")
    if isinstance(flat.get(negated), bool):
      apply_override(config, negated, "false")
      return
  if key == name:
    known = [
      "config",
      "workdir",
      "force",
      "help",
      *(f"config.{k}" for k in flat),
    ]
    raise UserError(f"unknown flag --{name}{suggestion(name, known, '--')}")
  if text is None and isinstance(flat.get(key), bool):
    text = "true"
  if text is None and key in flat:
    raise UserError(f"--{name} needs a value: --{name}=VALUE")
  apply_override(config, key, text or "")


def _needs(name: str, text: str | None) -> str:
  require(text, f"--{name} needs a value: --{name}=VALUE")
  return text


def _switch(switch: str, name: str, text: str | None) -> bool:
  value = True if text is None else parse_value(f"--{name}", text, bool)
  return value if name == switch else not value


def _usage(
  prog: str, spec: str, workdir: str | None, config: ConfigDict
) -> str:
  folder = f"here {workdir}" if workdir else "must be given"
  return "\n".join(
    [
      f"usage: {prog} [--config=FILE.py[:VARIANT]] --workdir=DIR "
      "[--config.KEY=VALUE ...] [--force]",
      "",
      f"--config   a config file and its variant (here {spec})",
      f"--workdir  the run folder ({folder}); the same command on the same "
      "folder goes on with the run",
      "--force    take a folder that holds a run of another config",
      "",
      "the config's keys and their values:",
      *(_show(f"config.{k}", value) for k, value in flatten(config).items()),
    ]
  )


def _show(name: str, value: Any) -> str:
  if isinstance(value, type):
    return f"  --{name}=... ({value.__name__}, must be given)"
  return f"  --{name}={value}"
