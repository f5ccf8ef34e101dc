"""The training loop, end to end on runs of seconds."""

import os
import pathlib
import signal
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jlejepa.runtime.errors import UserError
from jlejepa.runtime.metrics import read_metrics
from jlejepa.runtime.nonfinite import NonFiniteError
from jplanet import report, train, trainer
from jplanet.scores import read_scores
from jplanet.train import fit
from jplanet.trainer import Trainer
from jplanet.unroll import imagine, observe

ROOT = pathlib.Path(__file__).parents[2]
SUITE = ("env.action_repeat=100", "env.renderer=ray")


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
def whole(tiny_config, dial, tmp_path_factory):
  """A run from its start to its end."""
  path, seen = tmp_path_factory.mktemp("whole"), []
  with pytest.MonkeyPatch.context() as monkeypatch:
    made = keep_trainers(monkeypatch)
    result = fit(
      tiny_config(), path, env=dial, quiet=True, callback=seen.append
    )
  return SimpleNamespace(path=path, seen=seen, result=result, trainer=made[0])


def assert_equal_bits(one, two):
  assert jax.tree.structure(one) == jax.tree.structure(two)
  jax.tree.map(np.testing.assert_array_equal, one, two)


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


@pytest.mark.slow
def test_the_seed_decides_every_bit(
  whole, tiny_config, dial, tmp_path, trainers, rows_without_times
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


@pytest.mark.slow
def test_a_resumed_run_is_the_uninterrupted_run(
  whole, tiny_config, dial, tmp_path, trainers, rows_without_times
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


@pytest.mark.slow
def test_a_crash_loses_what_no_checkpoint_holds_and_nothing_else(
  whole, tiny_config, dial, tmp_path, trainers, rows_without_times
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


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
def test_workers_give_the_bits_of_one_process(
  tiny_config, tmp_path, trainers, rows_without_times
):
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
