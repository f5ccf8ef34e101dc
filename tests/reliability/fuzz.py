"""Damage what comes from outside, and see that nothing wrong gets in.

    python tests/reliability/fuzz.py --count=10000 --seed=0 [--only=episodes]

Of every damaged thing one of two is required: a `UserError` in one line, or
exactly the value that was there before.
"""

import collections
import random
import shutil
import sys
import tempfile
import time
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from jlejepa.check import check_config as check_lejepa
from jlejepa.runtime.checkpoint import Checkpoints
from jlejepa.runtime.config import flatten, load_config
from jlejepa.runtime.errors import UserError
from jlejepa.runtime.flags import parse_flags, parse_options

sys.path.insert(0, str(Path(__file__).parent))
import fuzz_data
from mutate import damage, damage_folder, damage_text, one_line, patiently

from jplanet.check import check_config as check_planet
from jplanet.replay import Episode, Replay, read_episode

SHAPE, ACTIONS, ENTRIES = (8, 8, 3), 2, 13


def same(one, two) -> bool:
  return all(
    a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
    for a, b in zip(one, two, strict=True)
  )


def make_episode(seed: int) -> Episode:
  rng = np.random.default_rng(seed)
  return Episode(
    image=rng.integers(0, 60, (ENTRIES, *SHAPE), np.uint8),
    action=rng.uniform(-1, 1, (ENTRIES, ACTIONS)).astype(np.float32),
    reward=rng.uniform(0, 1, ENTRIES).astype(np.float32),
  )


def fuzz_episodes(count: int, rng: random.Random, folder: Path):
  """Damages episode files: their bytes, and the arrays in them."""
  results = collections.Counter()
  replay = Replay(SHAPE, ACTIONS, folder=folder)
  good = make_episode(0)
  replay.add(good)
  path = folder / "000000.npz"
  intact = path.read_bytes()
  with zipfile.ZipFile(path) as archive:
    members = {name: archive.read(name) for name in archive.namelist()}
  for _ in patiently(count):
    if rng.random() < 0.6:
      path.write_bytes(damage(intact, rng))
    else:
      # With the right checksum around what is wrong.
      name = rng.choice(list(members))
      head = rng.random() < 0.7
      data = members[name]
      data = damage(data[:128], rng) + data[128:] if head else damage(data, rng)
      with zipfile.ZipFile(path, "w") as archive:
        for member, content in members.items():
          archive.writestr(member, data if member == name else content)
      if data != members[name]:
        try:
          episode = read_episode(path, SHAPE, ACTIONS)
          # No checksum can tell that it was another number once.
          assert all(np.isfinite(x).all() for x in episode), episode
          results["other values with a right checksum"] += 1
        except UserError as error:
          one_line(error)
          results["refused"] += 1
        continue
    try:
      episode = read_episode(path, SHAPE, ACTIONS)
      assert same(episode, good), "an episode with other values"
      results["intact"] += 1
    except UserError as error:
      one_line(error)
      results["refused"] += 1
  return results


def fuzz_replays(count: int, rng: random.Random, folder: Path):
  """Damages folders of episodes."""
  results = collections.Counter()
  good = [make_episode(i) for i in range(12)]
  whole = Replay(SHAPE, ACTIONS, folder=folder / "whole")
  for episode in good:
    whole.add(episode)
  for _ in patiently(count):
    shutil.rmtree(folder / "work", ignore_errors=True)
    shutil.copytree(folder / "whole", folder / "work")
    what = damage_folder(folder / "work", rng)
    again = Replay(SHAPE, ACTIONS, folder=folder / "work")
    try:
      lost = again.load(len(good))
    except UserError as error:
      one_line(error)
      results["refused"] += 1
      continue
    assert len(lost) + len(again) == len(good) and again.added == len(good)
    if what.startswith(("exchange", "link")):
      # A whole file under another's name is an episode all the same.
      assert all(any(same(e, g) for g in good) for e in again.episodes), what
    else:
      missing = {int(line[:6]) for line in lost}
      left = [e for i, e in enumerate(good) if i not in missing]
      assert all(map(same, left, again.episodes)), what
    assert len(again.load(len(good))) == len(lost), what
    results["set aside" if lost else "intact"] += 1
  return results


def make_tree(seed: int):
  rng = np.random.default_rng(seed)
  return {
    "w": rng.normal(size=(5, 7)).astype(np.float32),
    "count": np.int64(seed),
    "big": rng.integers(0, 9, 3000).astype(np.int32),
  }


def fuzz_checkpoints(count: int, rng: random.Random, folder: Path):
  """Damages folders of two checkpoints."""
  results = collections.Counter()
  whole = Checkpoints(folder / "whole")
  for step in (6, 8):
    whole.save(step, make_tree(step), {"step": step})
  template = make_tree(0)
  for _ in patiently(count):
    shutil.rmtree(folder / "work", ignore_errors=True)
    shutil.copytree(folder / "whole", folder / "work")
    what = damage_folder(folder / "work", rng)
    if rng.random() < 0.2:
      what += ", " + damage_folder(folder / "work", rng)
    checkpoints = Checkpoints(folder / "work")
    try:
      restored = checkpoints.restore(template)
    except UserError as error:
      one_line(error)
      results["refused"] += 1
      continue
    if restored is None:
      assert not checkpoints.steps(), what
      results["nothing there"] += 1
      continue
    step, tree, extra = restored
    # A folder may have got another number; what is in it belongs together.
    assert extra["step"] in (6, 8), what
    wanted = make_tree(extra["step"])
    pairs = zip(*(map(t.get, sorted(t)) for t in (tree, wanted)), strict=True)
    assert all(same([a], [b]) for a, b in pairs), f"other values: {what}"
    results[f"step {extra['step']}"] += 1
    if rng.random() < 0.1:
      checkpoints.save(step + 1, make_tree(step + 1), {"step": step + 1})
      again = Checkpoints(folder / "work").restore(template)
      assert again[0] == step + 1, what
      results["went on"] += 1
  return results


def fuzz_overrides(
  count: int, rng: random.Random, spec: str, check: Callable[..., None]
):
  """Damages overrides of a config on the command line.

  Args:
    count: how many.
    rng: of the damage.
    spec: the config.
    check: what a command does with it before it takes a folder.
  """
  results = collections.Counter()
  defaults = flatten(load_config(spec))
  keys = list(defaults)
  for _ in patiently(count):
    key = rng.choice(keys)
    text = damage_text(str(defaults[key]), rng)
    if rng.random() < 0.1:
      key = damage_text(key, rng)
    form = rng.choice(("--config.{}={}", "--config.{} {}", "--{}={}", "{}={}"))
    argv = ["--workdir=w", *form.format(key, text).split(" ", 1)]
    try:
      config = parse_flags(argv, default_spec=spec).config
      check(config)
    except UserError as error:
      one_line(error)
      results["refused"] += 1
      continue
    except SystemExit as error:
      assert error.code == 0 and "--help" in "".join(argv), argv
      results["help"] += 1
      continue
    changed = {
      name: value
      for name, value in flatten(config).items()
      if value != defaults[name]
    }
    assert set(changed) <= {key}, (argv, changed)
    for name, value in changed.items():
      check_reading(argv[-1], name, value, defaults[name])
    results["accepted"] += 1
  return results


def check_reading(text: str, name: str, value, default) -> None:
  """Requires that a value is what Python reads in the text, and of one type."""
  text = text.partition("=")[2] if text.startswith("--") else text
  if isinstance(default, bool):
    assert isinstance(value, bool), (name, text, value)
  elif isinstance(default, int):
    assert type(value) is int, (name, text, value)
    try:
      assert value == int(text), (name, text, value)
    except ValueError:
      assert value == float(text), (name, text, value)
  elif isinstance(default, float):
    assert type(value) is float and value == float(text), (name, text, value)
    assert np.isfinite(value)
  elif isinstance(default, str):
    assert value == text, (name, text, value)


KINDS = dict(
  episodes=fuzz_episodes,
  replays=fuzz_replays,
  checkpoints=fuzz_checkpoints,
  overrides_planet=lambda count, rng, folder: fuzz_overrides(
    count, rng, "planet.py:cpu", check_planet
  ),
  overrides_lejepa=lambda count, rng, folder: fuzz_overrides(
    count, rng, "lejepa.py:digits", check_lejepa
  ),
  images=fuzz_data.fuzz_images,
  folders=fuzz_data.fuzz_folders,
  archives=fuzz_data.fuzz_archives,
  prepared=fuzz_data.fuzz_prepared,
)


def main(argv: list[str]) -> None:
  options = parse_options(
    argv, options=dict(count=10_000, seed=0, only=""), prog="fuzz"
  )
  warnings.simplefilter("ignore")
  for name, fuzz in KINDS.items():
    if options.only in ("", name):
      start = time.monotonic()
      with tempfile.TemporaryDirectory() as folder:
        rng = random.Random(options.seed)
        results = fuzz(options.count, rng, Path(folder))
      seconds = time.monotonic() - start
      print(f"{name}: {dict(results)} ({seconds:.0f} s)", flush=True)


if __name__ == "__main__":
  main(sys.argv[1:])
