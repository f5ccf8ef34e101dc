import subprocess
import sys
from pathlib import Path

import pytest

from jlejepa.runtime.errors import UserError
from jlejepa.runtime.flags import parse_flags, parse_options, split_flags

ROOT = Path(__file__).parents[2]
CONFIG = """
from ml_collections import ConfigDict

def get_config(arg="small"):
  return ConfigDict(dict(
    seed=0, video=True, train=dict(lr=1e-3), noise=0.3, task="a", kind=arg))
"""
OPTIONS = {"workdir": str, "episodes": 10, "video": False, "notes": "x"}
PROGRAM = """
from jlejepa.runtime.errors import exit_on_user_error
from jlejepa.runtime.flags import parse_flags

@exit_on_user_error()
def run():
  print(parse_flags(default_spec="{spec}").config.train.lr)

run()
"""


@pytest.fixture
def spec(tmp_path):
  path = tmp_path / "toy.py"
  path.write_text(CONFIG)
  return str(path)


def test_full_command_line_is_read(spec):
  argv = [
    f"--config={spec}:big",
    "--workdir=runs/a b",
    "--config.train.lr=1e-4",
    "--config.task",
    "b",
    "--config.noise",
    "-1",
    "--noconfig.video",
    "--force",
  ]
  config, workdir, force = parse_flags(argv, default_spec="unused.py")
  assert (workdir, force, config.kind) == ("runs/a b", True, "big")
  assert (config.train.lr, config.task, config.noise) == (1e-4, "b", -1.0)
  assert config.video is False
  assert config.is_locked


def test_defaults_apply_without_flags(spec):
  folder = lambda config: f"runs/{config.kind}"
  flags = parse_flags([], default_spec=spec, default_workdir=folder)
  wanted = ("small", "runs/small", False)
  assert (flags.config.kind, flags.workdir, flags.force) == wanted


def test_a_folder_that_is_given_needs_no_name_from_the_config(spec):
  folder = lambda config: config.missing
  argv = ["--workdir=runs/x"]
  flags = parse_flags(argv, default_spec=spec, default_workdir=folder)
  assert flags.workdir == "runs/x"


def test_order_of_config_and_overrides_does_not_matter(spec):
  argv = ["--config.seed=3", f"--config={spec}:big", "--workdir=w"]
  config = parse_flags(argv, default_spec=spec).config
  assert (config.seed, config.kind) == (3, "big")


def test_last_of_repeated_flags_wins(spec):
  argv = ["--workdir=a", "--workdir=b", "--config.seed=1", "--config.seed=2"]
  flags = parse_flags(argv, default_spec=spec)
  assert (flags.workdir, flags.config.seed) == ("b", 2)


def test_bare_flag_switches_a_bool_on(spec):
  argv = ["--workdir=w", "--config.video=false", "--config.video"]
  assert parse_flags(argv, default_spec=spec).config.video is True


@pytest.mark.parametrize(
  "argument, message",
  [
    ("--config.typo=1", "no key config.typo"),
    ("--config.train.rl=1", "did you mean config.train.lr?"),
    ("--workdri=x", "unknown flag --workdri; did you mean --workdir?"),
    ("--train.lr=1", "did you mean --config.train.lr?"),
    ("--seed=1", "did you mean --config.seed?"),
    ("--config.seed=two", "config.seed must be an integer, got 'two'"),
    ("--config.seed", "--config.seed needs a value"),
    ("--config", "--config needs a value"),
    ("--workdir=", "--workdir needs a value"),
    ("--noconfig.seed", "did you mean --config.seed?"),
    ("--config=missing.py", "no config file 'missing.py'"),
    ("--force=perhaps", "--force must be true or false"),
    ("stray", "unexpected argument 'stray'"),
    ("--", "unexpected argument '--'"),
  ],
)
def test_bad_argument_is_one_line_that_names_it(spec, argument, message):
  with pytest.raises(UserError) as error:
    parse_flags([argument], default_spec=spec, default_workdir=lambda _: "w")
  assert message in str(error.value)
  assert "\n" not in str(error.value)


def test_missing_workdir_is_asked_for(spec):
  with pytest.raises(UserError, match="--workdir=DIR"):
    parse_flags([], default_spec=spec)


def test_help_lists_every_key_with_its_value_and_exits_zero(spec, capsys):
  with pytest.raises(SystemExit) as exit:
    parse_flags(["--help", "--config.seed=5"], default_spec=spec)
  assert exit.value.code == 0
  text = capsys.readouterr().out
  for line in ("--config.train.lr=0.001", "--config.seed=5", "--force"):
    assert line in text


@pytest.mark.parametrize(
  "argument, word",
  [("--config.typo=1", "config.typo"), ("--config.train.lr=nan", "finite")],
)
def test_command_exits_two_with_exactly_one_line(spec, argument, word):
  result = subprocess.run(
    [sys.executable, "-c", PROGRAM.format(spec=spec), "--workdir=w", argument],
    capture_output=True,
    text=True,
    cwd=ROOT,
  )
  assert result.returncode == 2
  assert result.stdout == ""
  assert result.stderr.startswith("error: ")
  assert result.stderr.count("\n") == 1
  assert word in result.stderr


def test_options_take_the_type_of_their_default():
  argv = ["--workdir=w", "--episodes", "3", "--video", "--notes=none"]
  values = parse_options(argv, options=OPTIONS)
  assert values.to_dict() == dict(
    workdir="w", episodes=3, video=True, notes="none"
  )
  off = ["--workdir=w", "--video", "--novideo"]
  assert parse_options(off, options=OPTIONS).video is False


@pytest.mark.parametrize(
  "argv, message",
  [
    ([], "the flag --workdir=... is missing"),
    (["--workdir=w", "--episode=3"], "did you mean --episodes?"),
    (["--workdir=w", "--episodes=three"], "--episodes must be an integer"),
    (["--workdir=w", "--episodes"], "--episodes needs a value"),
    (["--workdir=w", "--video=perhaps"], "--video must be true or false"),
  ],
)
def test_bad_option_is_one_line_that_names_it(argv, message):
  with pytest.raises(UserError) as error:
    parse_options(argv, options=OPTIONS)
  assert message in str(error.value)


def test_options_help_shows_defaults(capsys):
  with pytest.raises(SystemExit):
    parse_options(["--help"], options=OPTIONS, prog="evaluate")
  text = capsys.readouterr().out
  assert "--episodes=10" in text
  assert "--workdir=... (str, must be given)" in text


def test_split_flags_keeps_equals_signs_in_values():
  assert split_flags(["--a=b=c", "-d", "e", "--f"]) == [
    ("a", "b=c"),
    ("d", "e"),
    ("f", None),
  ]
