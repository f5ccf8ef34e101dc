import math
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from ml_collections import ConfigDict, config_dict

from jlejepa.runtime.config import (
  apply_override,
  flatten,
  load_config,
  suggestion,
  validate,
)
from jlejepa.runtime.errors import (
  UserError,
  finite_positive,
  one_of,
)

ROOT = Path(__file__).parents[2]
CONFIG = """
from ml_collections import ConfigDict, config_dict

def get_config(arg="small"):
  if arg not in ("small", "large"):
    raise ValueError(f"no variant {arg!r}: small or large")
  return ConfigDict(dict(
    seed=0,
    task="cartpole",
    train=dict(lr=1e-3, steps=100, resume=True),
    depths=(32, 64),
    names=("a", "b"),
    limit=config_dict.placeholder(int),
    nothing=None,
    width=8 if arg == "small" else 80,
  ))
"""


@pytest.fixture
def spec(tmp_path):
  path = tmp_path / "toy.py"
  path.write_text(CONFIG)
  return str(path)


def override(spec, text):
  config = load_config(spec, [text])
  return flatten(config)[text.partition("=")[0]]


def test_variant_after_colon_reaches_get_config(spec):
  assert load_config(spec).width == 8
  assert load_config(f"{spec}:large").width == 80


def test_loaded_config_refuses_new_keys(spec):
  with pytest.raises(AttributeError):
    load_config(spec).typo = 1


def test_relative_path_is_found_from_working_directory(
  spec, tmp_path, monkeypatch
):
  monkeypatch.chdir(tmp_path)
  assert load_config("toy.py").seed == 0


def test_repository_config_is_found_from_elsewhere(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  with_folder = load_config("configs/planet.py:debug")
  assert load_config("planet.py:debug").to_dict() == with_folder.to_dict()


def test_installed_package_has_its_own_configs(tmp_path, spec):
  # As a wheel lays them out, next to somebody else's `configs`.
  site, work = tmp_path / "site", tmp_path / "work"
  shutil.copytree(ROOT / "jlejepa" / "runtime", site / "jlejepa" / "runtime")
  (site / "jlejepa" / "__init__.py").touch()
  for folder in (site / "configs", site / "jlejepa" / "runtime" / "configs"):
    folder.mkdir(exist_ok=True)
  shutil.copy(spec, site / "jlejepa" / "runtime" / "configs")
  (site / "configs" / "toy.py").write_text("foreign")
  work.mkdir()
  code = "from jlejepa.runtime.config import load_config as load;"
  code += "print(load('configs/toy.py:large').width, load('toy.py').width)"
  result = subprocess.run(
    [sys.executable, "-c", code],
    cwd=work,
    env={**os.environ, "PYTHONPATH": str(site)},
    capture_output=True,
    text=True,
  )
  assert result.stdout == "80 8\n", result.stderr


@pytest.mark.parametrize(
  "text, value",
  [
    ("train.lr=1e-4", 1e-4),
    ("train.lr=2", 2.0),
    ("train.steps=1e3", 1000),
    ("train.steps=1_000", 1000),
    ("seed=-3", -3),
    ("train.resume=false", False),
    ("train.resume=1", True),
    ("task=none", "none"),
    ("task=a=b c", "a=b c"),
    ("depths=(8,16,32)", (8, 16, 32)),
    ("depths=8,16", (8, 16)),
    ("depths=[8]", (8,)),
    ("depths=()", ()),
    ("depths=(4,)", (4,)),
    ("names=('x', 'y')", ("x", "y")),
    ("names=x,y", ("x", "y")),
    ("limit=7", 7),
    ("limit=none", None),
    ("nothing=2.5", 2.5),
    ("nothing=word", "word"),
    ("nothing=[1, 2]", (1, 2)),
  ],
)
def test_override_is_read_as_type_of_default(spec, text, value):
  got = override(spec, text)
  assert got == value
  assert type(got) is type(value)


@pytest.mark.parametrize(
  "text, message",
  [
    ("train.lr=nan", "config.train.lr must be a finite number, got 'nan'"),
    ("train.lr=inf", "a finite number"),
    ("train.lr=fast", "a finite number"),
    ("train.lr=", "a finite number"),
    ("train.steps=1.5", "must be an integer, got '1.5'"),
    ("train.steps=1e400", "must be an integer"),
    ("train.steps=nan", "must be an integer"),
    ("train.resume=maybe", "must be true or false"),
    ("depths=(8,x)", "an item of config.depths must be an integer, got 'x'"),
    ("limit=x", "must be an integer"),
    ("train=3", "config.train is a section"),
    ("train.rl=3", "no key config.train.rl; did you mean config.train.lr?"),
    ("lr=3", "did you mean config.train.lr?"),
    ("zzz=3", "no key config.zzz; --help lists the keys"),
    ("seed", "must read KEY=VALUE"),
  ],
)
def test_bad_override_is_one_line_that_names_it(spec, text, message):
  with pytest.raises(UserError) as error:
    load_config(spec, [text])
  assert message in str(error.value)
  assert "\n" not in str(error.value)


@pytest.mark.parametrize(
  "text, message",
  [
    ("def get_config(:\n", "SyntaxError"),
    ("x = 1\n\ny = undefined\n", "line 3: NameError"),
    ("x = 1\n", "defines no get_config"),
    ("def get_config(): return {}\n", "returned a dict"),
  ],
)
def test_broken_config_file_is_reported_with_its_line(tmp_path, text, message):
  path = tmp_path / "broken.py"
  path.write_text(text)
  with pytest.raises(UserError, match=message):
    load_config(str(path))


def test_refused_variant_shows_the_files_own_words(spec):
  with pytest.raises(UserError, match="no variant 'huge': small or large"):
    load_config(f"{spec}:huge")


def test_missing_file_names_a_close_one():
  with pytest.raises(UserError, match=r"did you mean planet.py\?"):
    load_config("plant.py:debug")
  with pytest.raises(UserError, match=r"must read FILE.py"):
    load_config("planet")


def test_apply_override_changes_only_its_key(spec):
  config = load_config(spec)
  before = flatten(config)
  apply_override(config, "train.lr", "0.5")
  after = flatten(config)
  assert {k for k in before if before[k] != after[k]} == {"train.lr"}


SCHEMA = {"lr": finite_positive, "net.width": int, "net.kind": one_of("a", "b")}


def config(**changes):
  values = {"lr": 0.1, "net": {"width": 3, "kind": "a"}}
  return ConfigDict({**values, **changes})


def test_validate_accepts_nested_and_dotted_schemas():
  validate(config(), SCHEMA)
  validate(config(), {"lr": float, "net": {"width": int, "kind": str}})


@pytest.mark.parametrize(
  "changes, message",
  [
    (dict(ler=1), r"no key config.ler; did you mean config.lr\?"),
    (dict(lr=math.nan), "config.lr must be a finite number above 0, got nan"),
    (dict(lr=-1.0), "above 0"),
    (dict(lr=True), "above 0"),
    (dict(net={"width": 3}), "config.net.kind is missing"),
    (dict(net={"width": True, "kind": "a"}), "width must be an integer"),
    (dict(net={"width": 3, "kind": "c"}), "one of 'a', 'b'; got 'c'"),
  ],
)
def test_validate_names_the_first_bad_entry(changes, message):
  with pytest.raises(UserError, match=message):
    validate(config(**changes), SCHEMA)


def test_validate_float_rule_takes_integers_and_no_nan():
  validate(ConfigDict({"x": 3}), {"x": float})
  for value in (math.nan, math.inf, "3", False):
    with pytest.raises(UserError, match="a finite number"):
      validate(ConfigDict({"x": value}), {"x": float})


def test_suggestion_is_empty_without_a_close_name():
  assert suggestion("abc", ["xyz", "net.uvw"]) == ""


def test_placeholder_keeps_its_type_after_an_override():
  config = ConfigDict({"n": config_dict.placeholder(float)}).lock()
  apply_override(config, "n", "3")
  assert type(config.n) is float
