"""What the tests of several files share: a tiny run and an environment."""

import os

import dm_env
import jax
import numpy as np
import pytest
from dm_env import specs

from jlejepa.runtime.config import load_config
from jlejepa.runtime.metrics import read_metrics

# Most of the suite's time is XLA compiling small programs that run once, and
# much of that is LLVM optimising them: let it try less, here and in processes
# that tests start. `XLA_FLAGS` of your own come last and win.
LESS_EFFORT = (
  "--xla_backend_optimization_level=1",
  "--xla_llvm_disable_expensive_passes=true",
  "--xla_cpu_parallel_codegen_split_count=1",
)
os.environ["XLA_FLAGS"] = " ".join(
  [*LESS_EFFORT, os.environ.get("XLA_FLAGS", "")]
).strip()


class Dial(dm_env.Environment):
  """Rewards an action with its value and shows it as a shade of grey.

  The first image is drawn from the seed. So in a stored episode
  `reward[t] == action[t]` and `image[t] == shade(action[t])`.
  """

  action_repeat = 3

  def __init__(self, length=12, *, blind=False, on_step=lambda: None):
    self._length, self._blind, self._on_step = length, blind, on_step
    self._rng, self._t = np.random.default_rng(0), 0

  @staticmethod
  def shade(action):
    return np.round(127.5 + 127.5 * action).astype(np.uint8)

  def seed(self, seed):
    self._rng = np.random.default_rng(seed)

  def _image(self, value):
    return np.full((8, 8, 3), 0 if self._blind else value, np.uint8)

  def reset(self):
    self._t = 0
    return dm_env.restart(self._image(self._rng.integers(256)))

  def step(self, action):
    self._on_step()
    self._t += 1
    image, reward = self._image(self.shade(action[0])), float(action[0])
    if self._t == self._length:
      return dm_env.truncation(reward, image)
    return dm_env.transition(reward, image)

  def observation_spec(self):
    return specs.BoundedArray((8, 8, 3), np.uint8, 0, 255)

  def action_spec(self):
    return specs.BoundedArray((1,), np.float32, -1, 1)


def pytest_collection_modifyitems(items):
  """Puts the longest first: `-n 2` would end with one process waiting."""
  items.sort(key=lambda item: item.path.name != "test_notebooks.py")


@pytest.fixture(scope="session")
def dial():
  """The class `Dial`."""
  return Dial


@pytest.fixture(scope="session")
def tiny_config():
  """Makes configurations of a run that takes seconds, with overrides."""

  def make(*overrides):
    tiny = (
      "env.size=8", "env.num_envs=1", "env.supersample=1", "model.depth=4",
      "planner.horizon=3", "train.batch=2", "train.chunk=6",
      "train.seed_episodes=2", "train.max_episodes=5",
      "train.updates_per_collect=3", "evaluate.every=2",
      "evaluate.episodes=1", "runtime.tensorboard=false",
      "runtime.checkpoint_every=100",
    )  # fmt: skip
    return load_config("planet.py:debug", [*tiny, *overrides])

  return make


@pytest.fixture(scope="session")
def rows_without_times():
  """Reads the rows of a run's metrics, less what tells a time."""

  def read(workdir):
    return [
      {k: v for k, v in row.items() if "seconds" not in k and k != "minutes"}
      for row in read_metrics(workdir)
    ]

  return read


@pytest.fixture(scope="session", autouse=True)
def compile_once(tmp_path_factory):
  """Keeps compiled programs, since every run makes its jitted calls anew.

  Processes that a test starts take them too, by the environment, and the
  workers of pytest share them.
  """
  from jax.experimental.compilation_cache import compilation_cache

  folder = tmp_path_factory.getbasetemp()
  if "PYTEST_XDIST_WORKER" in os.environ:
    folder = folder.parent
  names = {
    "jax_compilation_cache_dir": str(folder / "compiled"),
    "jax_persistent_cache_min_compile_time_secs": 0.0,
    "jax_persistent_cache_min_entry_size_bytes": -1,
  }
  before = {name: getattr(jax.config, name) for name in names}
  # The cache looks for its folder once, at the first compilation.
  compilation_cache.reset_cache()
  for name, value in names.items():
    jax.config.update(name, value)
    os.environ[name.upper()] = str(value)
  yield
  for name, value in before.items():
    jax.config.update(name, value)
    del os.environ[name.upper()]
  compilation_cache.reset_cache()
