"""What README.md says can be typed: its Python runs, its commands parse."""

import importlib
import pathlib
import re
import shlex

import pytest

import jplanet
from jlejepa.check import check_config as check_lejepa
from jlejepa.runtime.flags import parse_flags
from jplanet.check import check_config as check_planet

ROOT = pathlib.Path(__file__).parents[1]
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
MODULES = {
  "jplanet.train": ("planet.py:cpu", check_planet),
  "jlejepa.train": ("lejepa.py:digits", check_lejepa),
}


def blocks(language):
  found = re.findall(
    rf"^```{language}\n(.*?)^```", TEXT, re.DOTALL | re.MULTILINE
  )
  assert found
  return found


def commands(module):
  """Lists the arguments of every `python -m module` in the shell blocks."""
  lines = "\n".join(blocks("bash")).replace("\\\n", " ").splitlines()
  found = [re.search(rf"python -m {module}\b([^&;]*)", line) for line in lines]
  return [shlex.split(match[1]) for match in found if match]


@pytest.mark.parametrize("module", list(MODULES))
def test_training_commands_are_understood(module, monkeypatch):
  monkeypatch.chdir(ROOT)
  default, check = MODULES[module]
  assert len(commands(module)) >= 2
  for argv in commands(module):
    # The one shell variable stands for a number.
    argv = [word.replace("$lam", "0.05") for word in argv]
    flags = parse_flags(argv, default_spec=default)
    check(flags.config)


@pytest.mark.parametrize(
  "module, describe, argv, folder",
  [
    (
      "jplanet.train",
      "jplanet.report.summary",
      ["--config.task=cup_catch"],
      "runs/cup_catch",
    ),
    (
      "jlejepa.train",
      "jlejepa.summary.describe_result",
      ["--force"],
      "runs/digits",
    ),
  ],
)
def test_a_run_has_a_folder_without_a_word(
  module, describe, argv, folder, monkeypatch, capsys
):
  train, seen = importlib.import_module(module), []

  def fit(config, workdir, **_):
    seen.append(workdir)
    return {"exit_code": 7}

  monkeypatch.setattr(train, "fit", fit)
  monkeypatch.setattr(describe, lambda result: "")
  with pytest.raises(SystemExit) as stop:
    train.run(argv)
  assert (stop.value.code, seen) == (7, [folder])
  with pytest.raises(SystemExit):
    train.run([*argv, "--help"])
  assert f"(here {folder})" in capsys.readouterr().out


def test_every_module_that_is_named_is_there():
  named = set(re.findall(r"python -m ((?:jplanet|jlejepa)[\w.]*)", TEXT))
  assert {"jplanet.train", "jplanet.evaluate", "jlejepa.selection"} <= named
  for name in named:
    path = ROOT / name.replace(".", "/")
    assert path.with_suffix(".py").is_file(), name


def test_every_file_that_is_linked_is_there():
  links = re.findall(r"\]\((?!http)([^)#]+)", TEXT)
  assert len(links) > 5
  for link in links:
    assert (ROOT / link).exists(), link


@pytest.mark.slow
@pytest.mark.parametrize("index", range(len(blocks("python"))))
def test_python_runs(index, tiny_config, tmp_path, monkeypatch, capsys):
  monkeypatch.chdir(tmp_path)
  load = jplanet.load_config

  def small(spec, overrides=()):
    if spec != "planet.py:cpu":
      return load(spec, overrides)
    # The names are checked as written; seconds of training stand for minutes.
    load(spec, overrides)
    return tiny_config("env.renderer=ray", "env.action_repeat=100", *overrides)

  monkeypatch.setattr(jplanet, "load_config", small, raising=False)
  exec(compile(blocks("python")[index], "README.md", "exec"), {})
  assert capsys.readouterr().out.strip()
