import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from ml_collections import ConfigDict

from jlejepa.runtime.environment import changes
from jlejepa.runtime.errors import UserError
from jlejepa.runtime.files import atomic_write_json, atomic_write_text
from jlejepa.runtime.run_folder import RunFolder, read_config, resolve

ROOT = Path(__file__).parents[2]
HOLDER = """
import sys, time
from pathlib import Path
from jlejepa.runtime.lock import FolderLock
lock = FolderLock(Path(sys.argv[1]))
print("held", flush=True)
time.sleep(60)
"""


def make_config(**changes):
  values = dict(
    task="cartpole", lr=1e-3, depths=(1, (2, 3)), runtime=dict(log=5)
  )
  return ConfigDict({**values, **changes})


def open_folder(path, config=None, **kwargs):
  return RunFolder.open(path, config or make_config(), **kwargs)


def test_folder_gets_config_and_environment(tmp_path):
  with open_folder(tmp_path / "a" / "run", extra={"renderer": "ray"}) as folder:
    config = json.loads((folder.path / "config.json").read_text())
    environment = json.loads((folder.path / "environment.json").read_text())
  assert config["lr"] == 1e-3
  assert environment["renderer"] == "ray"
  assert environment["packages"]["numpy"] == np.__version__
  assert environment["device_count"] >= 1
  assert environment["cpu_count"] >= 1


def test_config_survives_the_folder(tmp_path):
  with open_folder(tmp_path):
    pass
  config = read_config(tmp_path)
  assert config.to_dict() == make_config().to_dict()
  assert config.depths == (1, (2, 3))
  assert config.is_locked


def test_what_changes_the_bits_is_said_once(tmp_path, capsys):
  open_folder(tmp_path).close()
  path = tmp_path / "environment.json"
  for change, said in (
    (dict(vector_sets=["avx1"]), "vector_sets"),
    (dict(device_count=99), "device_count"),
    (dict(vector_sets=None), ""),  # from before they were noted
  ):
    facts = json.loads(path.read_text()) | change
    path.write_text(
      json.dumps({k: v for k, v in facts.items() if v is not None})
    )
    open_folder(tmp_path).close()
    first = capsys.readouterr().err
    open_folder(tmp_path).close()
    assert (said in first) and (first == "") == (said == "")
    assert capsys.readouterr().err == ""


def test_same_config_reopens(tmp_path):
  for _ in range(2):
    open_folder(tmp_path).close()


def test_another_config_is_refused_with_the_differing_keys(tmp_path):
  open_folder(tmp_path).close()
  with pytest.raises(UserError) as error:
    open_folder(tmp_path, make_config(lr=0.5, extra=1))
  message = str(error.value)
  assert "lr 0.001 -> 0.5" in message
  assert "extra (absent) -> 1" in message
  assert "task" not in message
  assert "--force" in message
  assert "\n" not in message


def test_refusal_leaves_config_and_lock_alone(tmp_path):
  open_folder(tmp_path).close()
  with pytest.raises(UserError):
    open_folder(tmp_path, make_config(lr=0.5))
  assert read_config(tmp_path).lr == 1e-3
  open_folder(tmp_path).close()


def test_force_takes_the_folder_and_replaces_its_config(tmp_path):
  open_folder(tmp_path).close()
  open_folder(tmp_path, make_config(lr=0.5), force=True).close()
  assert read_config(tmp_path).lr == 0.5


def test_runtime_and_ignored_keys_may_differ(tmp_path):
  open_folder(tmp_path).close()
  other = make_config(runtime=dict(log=6, new=1))
  open_folder(tmp_path, other).close()
  assert read_config(tmp_path).runtime.log == 6
  open_folder(tmp_path, make_config(lr=2.0), ignore=("lr", "runtime")).close()
  with pytest.raises(UserError, match=r"runtime\.log"):
    open_folder(tmp_path, make_config(lr=2.0, runtime={"log": 7}), ignore=())
  with pytest.raises(UserError, match="runtimes"):
    open_folder(tmp_path, make_config(lr=2.0, runtimes=3))


def test_second_opening_is_refused_naming_the_holder(tmp_path):
  with (
    open_folder(tmp_path),
    pytest.raises(UserError, match=f"in use by process {os.getpid()} on"),
  ):
    open_folder(tmp_path)
  open_folder(tmp_path).close()


def test_lock_of_another_process_holds_until_it_is_killed(tmp_path):
  process = subprocess.Popen(
    [sys.executable, "-c", HOLDER, str(tmp_path)],
    stdout=subprocess.PIPE,
    text=True,
    cwd=ROOT,
  )
  try:
    assert process.stdout.readline() == "held\n"
    with pytest.raises(UserError, match=f"process {process.pid} on"):
      open_folder(tmp_path)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    open_folder(tmp_path).close()
  finally:
    process.kill()
    process.stdout.close()
    process.wait()


def test_unusable_places_give_one_clear_line(tmp_path):
  (tmp_path / "file").write_text("x")
  bad = {
    "": "no folder name",
    "a\0b": "no folder name",
    str(tmp_path / "file"): "is a file, not a folder",
    str(tmp_path / "file" / "run"): "Not a directory",
    str(tmp_path / ("x" * 300)): "File name too long",
    "/proc/run": "cannot be used",
    "~no_such_user/run": "home directory",
  }
  for place, message in bad.items():
    with pytest.raises(UserError, match=message) as error:
      open_folder(place)
    assert "\n" not in str(error.value)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_read_only_folder_gives_one_clear_line(tmp_path):
  tmp_path.chmod(0o500)
  with pytest.raises(UserError, match="cannot be used: Permission denied"):
    open_folder(tmp_path / "run")


def test_relative_paths_tilde_and_spaces_are_resolved(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  monkeypatch.setenv("HOME", str(tmp_path))
  assert resolve("a b/ü") == tmp_path / "a b" / "ü"
  assert resolve("~/run") == tmp_path / "run"
  with open_folder("a b/ü") as folder:
    assert (tmp_path / "a b" / "ü" / "config.json").is_file()
    assert folder.checkpoints.is_absolute()


def test_reading_no_run_or_a_damaged_one_says_so(tmp_path):
  with pytest.raises(UserError, match="holds no run"):
    read_config(tmp_path)
  for text in ('{"lr": 1', "[1]", '"x"'):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(UserError, match="damaged"):
      read_config(tmp_path)


def test_resume_under_another_version_is_noted(tmp_path, capsys):
  open_folder(tmp_path).close()
  path = tmp_path / "environment.json"
  environment = json.loads(path.read_text())
  open_folder(tmp_path).close()
  assert capsys.readouterr().err == ""
  environment["packages"]["numpy"] = "0.1"
  path.write_text(json.dumps(environment))
  open_folder(tmp_path).close()
  assert "packages.numpy '0.1' -> " in capsys.readouterr().err


def test_changes_lists_each_differing_leaf():
  # b.c differs, d was added, e was removed, a is equal.
  old = {"a": 1, "b": {"c": 2}, "e": 0}
  new = {"a": 1, "b": {"c": 3}, "d": 4}
  assert changes(old, new) == [
    "b.c 2 -> 3",
    "e 0 -> (absent)",
    "d (absent) -> 4",
  ]


def test_atomic_write_keeps_old_content_when_it_fails(tmp_path, monkeypatch):
  path = tmp_path / "file"
  atomic_write_text(path, "old")

  def fail(*args):
    raise OSError("disk full")

  monkeypatch.setattr(os, "fsync", fail)
  with pytest.raises(OSError, match="disk full"):
    atomic_write_text(path, "new")
  assert path.read_text() == "old"
  assert os.listdir(tmp_path) == ["file"]


def test_atomic_json_takes_numpy_and_refuses_objects(tmp_path):
  path = tmp_path / "file.json"
  atomic_write_json(path, {"a": np.int64(3), "b": np.ones(2), "c": tmp_path})
  value = json.loads(path.read_text())
  assert value == {"a": 3, "b": [1.0, 1.0], "c": str(tmp_path)}
  with pytest.raises(TypeError, match="object cannot be written as JSON"):
    atomic_write_json(path, {"a": object()})
  assert json.loads(path.read_text()) == value
