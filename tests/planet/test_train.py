"""The training loop, end to end on runs of seconds."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jlejepa.runtime.config import load_config
from jlejepa.runtime.errors import UserError
from jlejepa.runtime.metrics import read_metrics
from jlejepa.runtime.nonfinite import NonFiniteError
from jplanet import report, train, trainer
from jplanet.counters import Counters
from jplanet.envs import from_gymnasium
from jplanet.jax_envs import pendulum
from jplanet.jax_envs.dm_adapter import DmEnv
from jplanet.scores import read_scores
from jplanet.train import fit
from jplanet.trainer import Trainer
from jplanet.unroll import imagine, observe

ROOT = pathlib.Path(__file__).parents[2]
SUITE = ("env.action_repeat=100", "env.renderer=ray")

pytestmark = pytest.mark.usefixtures("compile_once")


def keep_trainers(monkeypatch):
  """Lists the trainers that `fit` makes; they draw no pictures."""
  made = []

  class Kept(Trainer):
    def __init__(self, *args):
      made.append(self)
      super().__init__(*args)

  monkeypatch.setattr(train, "Trainer", Kept)
  monkeypatch.setattr(report, "write_pictures", lambda *args: {})
  return made


@pytest.fixture
def trainers(monkeypatch):
  return keep_trainers(monkeypatch)


@pytest.fixture(scope="module")
def whole(compile_once, tiny_config, dial, tmp_path_factory):
  """A run from its start to its end."""
  path, seen = tmp_path_factory.mktemp("whole"), []
  with pytest.MonkeyPatch.context() as monkeypatch:
    made = keep_trainers(monkeypatch)
    result = fit(
      tiny_config(), path, env=dial, quiet=True, callback=seen.append
    )
  return SimpleNamespace(path=path, seen=seen, result=result, trainer=made[0])


def rows_without_times(workdir):
  return [
    {k: v for k, v in row.items() if "seconds" not in k and k != "minutes"}
    for row in read_metrics(workdir)
  ]


def assert_equal_bits(one, two):
  assert jax.tree.structure(one) == jax.tree.structure(two)
  jax.tree.map(np.testing.assert_array_equal, one, two)


class Dry(Trainer):
  """Counts the phases of a schedule, of which none does anything."""

  def __init__(self, config, seed_episodes, lengths):
    self.config, self.lengths = config, lengths
    self.counters, self.state = Counters(), None
    self.seed_episodes = seed_episodes
    self.max_episodes = config.train.max_episodes
    self.stop, self.log = SimpleNamespace(requested=False), []

  def init(self):
    self.state = ()

  def fit(self, target):
    self.counters = self.counters._replace(updates=target)

  def collect(self, *, random):
    self.counters = self.counters.add_episodes(self.lengths, [4])
    self.log.append((random, self.counters.updates))

  def evaluate(self):
    evaluations = self.counters.evaluations + 1
    self.counters = self.counters._replace(evaluations=evaluations)

  def save(self):
    pass


def test_the_papers_schedule():
  """5 seed episodes, then 100 updates before each of the other 995."""
  trainer = Dry(load_config("planet.py:cheetah_run"), 5, [250])
  trainer.run()
  counts = trainer.counters
  assert [random for random, _ in trainer.log] == [True] * 5 + [False] * 995
  assert [updates for _, updates in trainer.log[:7]] == [0] * 5 + [100, 200]
  assert trainer.log[499][1] == 49_500
  assert (counts.episodes, counts.updates) == (1000, 99_500)
  assert (counts.decisions, counts.env_steps) == (250_000, 1_000_000)
  # After every tenth of 995 phases.
  assert counts.evaluations == 99


def test_updates_can_follow_the_decisions():
  """A fifth of the decisions so far, however long the episodes are."""
  config = load_config("planet.py:cpu", ["train.max_episodes=32"])
  trainer = Dry(config, 8, [125] * 7 + [25])
  trainer.run()
  assert [updates for _, updates in trainer.log] == [0, 180, 360, 540]


def test_everything_is_counted(whole, dial):
  rows = read_metrics(whole.path)
  assert rows == whole.seen
  column = lambda name: [row[name] for row in rows]
  # 2 seed episodes, then 3 updates before each of 3, of 12 decisions that
  # last 3 control steps each.
  assert column("episodes") == [1, 2, 3, 4, 5]
  assert column("updates") == [0, 0, 3, 6, 9]
  assert column("decisions") == [12, 24, 36, 48, 60]
  assert column("env_steps") == [36, 72, 108, 144, 180]
  # Every second phase: after 6 updates. The run's end adds another.
  assert column("evaluations") == [0, 0, 0, 1, 1]
  assert [i for i, row in enumerate(rows) if "eval_return" in row] == [3]
  assert all({"loss", "grad_norm", "seconds_fit"} <= {*r} for r in rows[2:])
  assert "loss" not in rows[1]
  assert whole.result["updates"] == 9 and whole.result["exit_code"] == 0
  scores = read_scores(whole.path)
  assert scores["xs_episodes"] == [3, 5]
  assert scores["xs_env_steps"] == [108, 180]


def test_updates_and_decisions_compile_once(whole):
  assert whole.trainer.step._cache_size() == 1
  # Collection and evaluation alike have one environment here.
  assert whole.trainer.parts.batched_act._cache_size() == 1


def test_the_files_hold_what_was_executed_and_where_it_led(whole, dial):
  episodes = sorted((whole.path / "episodes").glob("*.npz"))
  assert len(episodes) == 5
  for path in episodes:
    with np.load(path) as data:
      assert np.abs(data["action"]).max() <= 1
      np.testing.assert_array_equal(data["reward"], data["action"][:, 0])
      np.testing.assert_array_equal(
        data["image"][1:, 0, 0, 0], dial.shade(data["action"][1:, 0])
      )


def test_the_seed_decides_every_bit(
  whole, tiny_config, dial, tmp_path, trainers
):
  fit(tiny_config(), tmp_path / "0", env=dial, quiet=True)
  assert_equal_bits(whole.trainer.state, trainers[0].state)
  rows = rows_without_times(whole.path)
  assert rows == rows_without_times(tmp_path / "0")
  other = tiny_config("seed=1", "train.max_episodes=3")
  fit(other, tmp_path / "1", env=dial, quiet=True)
  returns = [row["train_return"] for row in rows_without_times(tmp_path / "1")]
  assert all(a != row["train_return"] for a, row in zip(returns, rows))


def interrupt(dial, at):
  """Makes environments of which one sends SIGTERM at a step of them all."""
  steps = []

  def on_step():
    steps.append(None)
    if len(steps) == at:
      os.kill(os.getpid(), signal.SIGTERM)

  return lambda: dial(on_step=on_step)


def test_a_resumed_run_is_the_uninterrupted_run(
  whole, tiny_config, dial, tmp_path, trainers
):
  config = tiny_config()
  # 36 steps of three episodes, 12 of an evaluation, 12 of the fourth episode:
  # 40 falls into the evaluation, and 53 behind it, where its result and the
  # losses are still to be logged.
  for at in (40, 53):
    folder = tmp_path / f"{at}"
    result = fit(config, folder, env=interrupt(dial, at), quiet=True)
    assert result["exit_code"] == 75 and result["episodes"] < 5
    result = fit(config, folder, env=dial, quiet=True)
    assert result["exit_code"] == 0
    # Weights from a checkpoint must not make acting compile twice.
    assert trainers[-1].parts.batched_act._cache_size() == 1
    assert trainers[-1].step._cache_size() <= 1
    assert_equal_bits(whole.trainer.state, trainers[-1].state)
    assert rows_without_times(folder) == rows_without_times(whole.path)
    one, two = read_scores(folder), read_scores(whole.path)
    assert one["returns"] == two["returns"]
    assert one["xs_env_steps"] == two["xs_env_steps"]


def test_a_crash_loses_what_no_checkpoint_holds_and_nothing_else(
  whole, tiny_config, dial, tmp_path, trainers
):
  config = tiny_config("runtime.checkpoint_every=2")

  def crash(row):
    if row["episodes"] == 5:
      raise ZeroDivisionError

  # The checkpoint stands at 4 episodes, the files hold a fifth.
  with pytest.raises(ZeroDivisionError):
    fit(config, tmp_path, env=dial, quiet=True, callback=crash)
  result = fit(config, tmp_path, env=dial, quiet=True)
  assert result["episodes"] == 5
  assert (tmp_path / "episodes" / "aside" / "000004.npz").exists()
  assert_equal_bits(whole.trainer.state, trainers[-1].state)
  rows = rows_without_times(tmp_path)
  assert rows == rows_without_times(whole.path)
  # The finished run has nothing left to do.
  again = fit(config, tmp_path, env=dial, quiet=True)
  assert again["updates"] == 9 and again["eval_return"] == result["eval_return"]
  assert rows_without_times(tmp_path) == rows


def test_the_model_learns_the_reward_of_the_action_it_belongs_to(
  tiny_config, dial, tmp_path, trainers
):
  """Trap 1: the picture is black, so that the action alone tells the reward."""
  config = tiny_config(
    "train.collect=random", "train.updates_per_collect=300", "train.batch=8",
    "train.max_episodes=3", "optimizer.learning_rate=0.005",
    "optimizer.ema=0", "evaluate.every=0",
  )  # fmt: skip
  fit(config, tmp_path, env=lambda: dial(blind=True), quiet=True)
  (trainer,) = trainers
  model, params = trainer.parts.model, trainer.state.params
  actions = np.random.default_rng(5).uniform(-1, 1, (40, 1)).astype(np.float32)

  @jax.jit
  def predict(actions):
    """Rewards of imagined actions, after three filtered entries."""
    images = jnp.zeros((3, 8, 8, 3), jnp.uint8)
    states = observe(
      model, params, images, jnp.zeros((3, 1)), jax.random.key(0)
    )
    last = jax.tree.map(lambda x: x[-1], states)
    states = imagine(model, params, last, actions, None)
    return jax.vmap(lambda s: model.reward(params, s))(states)

  predicted = np.asarray(predict(actions))
  correlation = lambda a, b: np.corrcoef(a, b)[0, 1]
  assert correlation(predicted, actions[:, 0]) > 0.95
  # A loop that stored actions one late or early would have taught one of these.
  assert abs(correlation(predicted[1:], actions[:-1, 0])) < 0.6
  assert abs(correlation(predicted[:-1], actions[1:, 0])) < 0.6


def test_gradients_that_stay_bad_end_the_run_with_good_weights(
  tiny_config, dial, tmp_path, trainers, monkeypatch
):
  def poisoned(config, action_dim):
    parts = build(config, action_dim)

    def loss(params, batch, key):
      value, metrics = parts.model.loss(params, batch, key)
      return value * jnp.nan, metrics | {"loss": value * jnp.nan}

    return parts._replace(model=parts.model._replace(loss=loss))

  build = trainer.build
  monkeypatch.setattr(trainer, "build", poisoned)
  config = tiny_config("train.updates_per_collect=10")
  with pytest.raises(NonFiniteError, match="10 gradients up to update 10"):
    fit(config, tmp_path, env=dial, quiet=True)
  state = trainers[0].state
  assert all(np.isfinite(x).all() for x in jax.tree.leaves(state.params))


def make_pendulum():
  return DmEnv(pendulum(size=8, episode_length=12))


def make_gymnasium():
  gymnasium = pytest.importorskip("gymnasium")

  class Box(gymnasium.Env):
    observation_space = gymnasium.spaces.Box(0, 255, (8, 8, 3), np.uint8)
    action_space = gymnasium.spaces.Box(-2.0, 2.0, (1,), np.float32)

    def reset(self, *, seed=None, options=None):
      super().reset(seed=seed)
      self.t = 0
      return self.np_random.integers(256, size=(8, 8, 3), dtype=np.uint8), {}

    def step(self, action):
      self.t += 1
      image = np.full((8, 8, 3), self.t, np.uint8)
      return image, float(action[0]), False, self.t == 12, {}

  return from_gymnasium(Box(), size=8)


@pytest.mark.parametrize("maker", [make_pendulum, make_gymnasium])
def test_an_environment_of_ones_own_is_trained_on(
  maker, tiny_config, tmp_path, trainers
):
  config = tiny_config("task=mine", "train.max_episodes=3")
  result = fit(config, tmp_path, env=maker, quiet=True)
  assert result["decisions"] == result["env_steps"] == 36
  scores = read_scores(tmp_path)
  names = {make_pendulum: "jax", make_gymnasium: "gymnasium"}
  assert (scores["task"], scores["renderer"]) == ("mine", names[maker])


def test_several_environments_are_collected_side_by_side(
  tiny_config, dial, tmp_path, trainers
):
  # 2 seed episodes become 3, one of each environment.
  config = tiny_config(
    "env.num_envs=3", "train.max_episodes=8", "evaluate.episodes=3"
  )
  result = fit(config, tmp_path, env=dial, quiet=True)
  rows = read_metrics(tmp_path)
  assert [row["episodes"] for row in rows] == [3, 6, 9]
  assert [row["updates"] for row in rows] == [0, 3, 6]
  assert result["decisions"] == 9 * 12
  first = trainers[0].replay.episodes
  assert len({e.image[0, 0, 0, 0] for e in first}) > 5


def test_the_time_budget_ends_a_run_as_finished(
  tiny_config, dial, tmp_path, trainers
):
  # No time at all: the first phase is not begun, and nothing was learned.
  config = tiny_config("runtime.max_minutes=1e-9")
  result = fit(config, tmp_path, env=dial, quiet=True)
  assert result["exit_code"] == 0 and result["updates"] == 0
  # The runtime section is no part of what makes a run another one.
  result = fit(tiny_config(), tmp_path, env=dial, quiet=True)
  assert result["updates"] == 9 and result["minutes"] > 0


def test_a_folder_of_another_config_is_left_alone(whole, tiny_config, dial):
  other = tiny_config("train.max_episodes=6")
  with pytest.raises(UserError, match="another config"):
    fit(other, whole.path, env=dial, quiet=True)
  assert len(read_metrics(whole.path)) == 5


def test_a_real_run_fills_its_folder(tiny_config, tmp_path, capfd):
  pytest.importorskip("imageio_ffmpeg")
  pytest.importorskip("matplotlib")
  config = tiny_config(
    *SUITE,
    "train.max_episodes=4",
    "env.num_envs=2",
    "evaluate.episodes=2",
    "runtime.tensorboard=true",
  )
  result = fit(config, tmp_path)
  assert {
    "config.json", "environment.json", "metrics.jsonl", "scores.json",
    "checkpoints", "episodes", "videos", "plots", "tensorboard",
  } <= {path.name for path in tmp_path.iterdir()}  # fmt: skip
  assert len(result["pictures"]) == 4
  for path in map(pathlib.Path, result["pictures"].values()):
    assert path.stat().st_size > 100
  assert json.loads((tmp_path / "config.json").read_text())["seed"] == 0
  environment = json.loads((tmp_path / "environment.json").read_text())
  assert environment["renderer"] == "ray"
  scores = read_scores(tmp_path)
  assert scores["task"] == "cartpole_swingup" and scores["renderer"] == "ray"
  # 4 episodes of 1000 control steps, in decisions of 100.
  assert (result["env_steps"], result["decisions"]) == (4000, 40)
  assert 0 <= result["eval_return"] <= 1000
  assert "env steps" in capfd.readouterr().err
  assert "noise-free return" in report.summary(result)


@pytest.mark.parametrize("decisions", [1, 4])
def test_short_episodes_have_their_pictures(
  decisions, tiny_config, dial, tmp_path
):
  """Fewer frames than the usual context of five before the imagined ones."""
  config = tiny_config(
    "train.chunk=2", "train.max_episodes=3", "evaluate.every=0"
  )
  result = fit(config, tmp_path, env=lambda: dial(decisions), quiet=True)
  assert "imagined against true" in result["pictures"]
  assert all(
    pathlib.Path(path).is_file() for path in result["pictures"].values()
  )


@pytest.mark.slow
def test_workers_give_the_bits_of_one_process(tiny_config, tmp_path, trainers):
  overrides = (
    *SUITE, "env.num_envs=2", "train.max_episodes=4", "evaluate.episodes=2"
  )  # fmt: skip
  for workers in (0, 2):
    config = tiny_config(*overrides, f"env.workers={workers}")
    fit(config, tmp_path / f"{workers}", quiet=True)
  assert_equal_bits(trainers[0].state, trainers[1].state)
  assert rows_without_times(tmp_path / "0") == rows_without_times(
    tmp_path / "2"
  )


@pytest.mark.slow
def test_several_tasks_have_their_own_scores(tiny_config, tmp_path, trainers):
  config = tiny_config(
    *SUITE, "task=cartpole_swingup,cheetah_run", "env.num_envs=2"
  )
  result = fit(config, tmp_path, quiet=True)
  # 5 episodes of each task; a phase collects one of each.
  assert (result["episodes"], result["env_steps"]) == (10, 10_000)
  for task in ("cartpole_swingup", "cheetah_run"):
    scores = read_scores(tmp_path / f"scores_{task}.json")
    assert scores["task"] == task and scores["xs_env_steps"][-1] == 5000
    assert scores["final"]["episodes"] == 1


@pytest.mark.slow
def test_sigterm_saves_and_the_same_command_finishes(tmp_path):
  overrides = (
    *SUITE, "env.size=8", "env.supersample=1", "train.max_episodes=20",
    "evaluate.every=0", "evaluate.episodes=2",
  )  # fmt: skip
  command = [
    sys.executable, "-m", "jplanet.train", "--config=planet.py:debug",
    f"--workdir={tmp_path}", *(f"--config.{text}" for text in overrides),
  ]  # fmt: skip
  process = subprocess.Popen(
    command, cwd=ROOT, stderr=subprocess.PIPE, text=True
  )
  deadline = time.monotonic() + 300
  while not list(tmp_path.glob("checkpoints/*/manifest.json")):
    assert process.poll() is None and time.monotonic() < deadline
    time.sleep(0.02)
  process.send_signal(signal.SIGTERM)
  _, err = process.communicate(timeout=300)
  assert process.returncode == 75, err
  assert "the same command goes on" in err
  done = read_metrics(tmp_path)[-1]["episodes"]
  assert done < 20
  finished = subprocess.run(
    command, cwd=ROOT, capture_output=True, text=True, timeout=300
  )
  assert finished.returncode == 0, finished.stderr
  assert "going on from" in finished.stderr
  assert "noise-free return" in finished.stdout
  episodes = [row["episodes"] for row in read_metrics(tmp_path)]
  assert episodes == list(range(2, 21, 2))
