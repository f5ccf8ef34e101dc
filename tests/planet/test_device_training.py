"""PlaNet's loop on the device: the buffer, the episodes, the rounds."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jplanet
from jplanet.agent import Agent
from jplanet.jax_envs import JaxEnv, training
from jplanet.jax_envs.buffer import add_episodes, empty_buffer, sample_chunks
from jplanet.jax_envs.pendulum import pendulum
from jplanet.jax_envs.training import (
  fit_on_device,
  planned_episodes,
  random_episodes,
)
from jplanet.setup import Parts, build
from jplanet.types import Batch, WorldModel

SIZE, LENGTH = 16, 5


class Count(NamedTuple):
  """Which episode this is, `[]` in 0 to 199, and decisions made, `[]`."""

  number: jax.Array
  t: jax.Array


def counting_env(reward=lambda state: 0.01 * state.t) -> JaxEnv:
  """Shows `number + t` in every pixel and pays `t` hundredths."""

  def reset(key):
    return Count(jax.random.randint(key, (), 0, 200), jnp.int32(0))

  def step(state, action):
    state = Count(state.number, state.t + 1)
    return state, jnp.float32(reward(state))

  def render(state):
    colour = (state.number + state.t).astype(jnp.uint8)
    return jnp.broadcast_to(colour, (SIZE, SIZE, 3))

  return JaxEnv("counting", reset, step, render, 2, LENGTH)


def tiny_config(*overrides):
  sizes = (
    "env.size=16", "train.seed_episodes=3", "train.chunk=4", "train.batch=2",
    "train.updates_per_collect=3", "evaluate.every=2", "evaluate.episodes=2",
    "optimizer.ema=0.0",
  )  # fmt: skip
  return jplanet.load_config("planet.py:debug", [*sizes, *overrides])


def marked_episodes(numbers) -> Batch:
  """Episodes whose every entry tells its episode and its time."""
  numbers = np.asarray(numbers)
  times = np.arange(LENGTH + 1)
  marks = (20 * numbers[:, None] + times).astype(np.float32)
  image = np.broadcast_to(
    marks[..., None, None, None].astype(np.uint8),
    (*marks.shape, SIZE, SIZE, 3),
  )
  action = np.stack([marks, -marks], axis=-1)
  return jax.tree.map(jnp.asarray, Batch(image, action, marks))


def filled_buffer(numbers, capacity):
  episodes = marked_episodes(numbers)
  return add_episodes(empty_buffer(counting_env(), capacity), episodes)


def test_the_buffer_appends_and_keeps_what_it_has():
  buffer = filled_buffer([1, 2], capacity=6)
  buffer = jax.jit(add_episodes)(buffer, marked_episodes([3, 4, 5]))
  assert buffer.filled == 5
  assert buffer.episodes.image.dtype == jnp.uint8
  assert buffer.episodes.image.shape == (6, LENGTH + 1, SIZE, SIZE, 3)
  expected = marked_episodes([1, 2, 3, 4, 5])
  held = jax.tree.map(lambda x: x[:5], buffer.episodes)
  jax.tree.map(np.testing.assert_array_equal, held, expected)
  assert not buffer.episodes.reward[5].any()


def test_chunks_are_uniform_pieces_of_filled_episodes():
  # Three filled episodes of 6 entries among 8 places; chunks of 4 begin at 0,
  # 1 or 2: nine kinds of chunk.
  buffer = filled_buffer([1, 2, 3], capacity=8)
  draw = jax.jit(lambda key: sample_chunks(buffer, key, 1800, 4))
  chunks = jax.tree.map(np.asarray, draw(jax.random.key(0)))
  assert chunks.image.shape == (1800, 4, SIZE, SIZE, 3)
  assert chunks.image.dtype == np.uint8
  first = chunks.reward[:, 0].astype(int)
  expected = first[:, None] + np.arange(4)
  np.testing.assert_array_equal(chunks.reward, expected)
  np.testing.assert_array_equal(chunks.action[..., 0], expected)
  np.testing.assert_array_equal(chunks.action[..., 1], -expected)
  pixels = expected[..., None, None, None]
  np.testing.assert_array_equal(
    chunks.image, np.broadcast_to(pixels, chunks.image.shape)
  )
  kinds, counts = np.unique(first, return_counts=True)
  assert kinds.tolist() == [20, 21, 22, 40, 41, 42, 60, 61, 62]
  # 200 expected of each, standard deviation sqrt(1800 * 1/9 * 8/9) = 13.3.
  assert np.abs(counts - 200).max() < 5 * 13.3


def test_a_whole_episode_is_the_longest_chunk():
  buffer = filled_buffer([2], capacity=1)
  chunks = sample_chunks(buffer, jax.random.key(1), 2, LENGTH + 1)
  np.testing.assert_array_equal(chunks.reward[1], 40 + np.arange(LENGTH + 1))
  with pytest.raises(ValueError, match=r"chunk of 7 .* between 1 and 6"):
    sample_chunks(buffer, jax.random.key(1), 2, LENGTH + 2)


def test_random_actions_are_uniform_and_differ_between_episodes():
  keys = jax.random.split(jax.random.key(3), 200)
  play = jax.jit(lambda keys: random_episodes(counting_env(), keys))
  actions = np.asarray(play(keys).action)[:, 1:]
  # Uniform on [-1, 1]: mean 0, variance 1/3, and of 2000 draws the mean has a
  # standard deviation of 0.013 and the variance one of 0.0067.
  assert np.abs(actions).max() <= 1 and np.abs(actions).max() > 0.99
  assert abs(actions.mean()) < 0.065
  assert abs(actions.var() - 1 / 3) < 0.034
  assert len(np.unique(actions)) > 0.99 * actions.size


def echo_agent(weight=lambda params: params) -> Agent:
  """Acts by what it is given: params, image, noise, and a count of calls."""

  def act(params, state, image, key, noise):
    shown = image.mean() / 1000
    return jnp.stack([weight(params) + 0.1 * state, shown + noise]), state + 1

  return Agent(init=lambda: jnp.float32(0), act=act)


def test_planned_episodes_give_the_agent_what_it_needs():
  env = counting_env()
  keys = jax.random.split(jax.random.key(5), 3)
  play = jax.jit(lambda p, k, n: planned_episodes(env, echo_agent(), p, k, n))
  batch = jax.tree.map(np.asarray, play(0.2, keys, 0.5))
  assert batch.action.shape == (3, LENGTH + 1, 2)
  # The memory starts anew in each episode and counts the decisions.
  expected = 0.2 + 0.1 * np.arange(LENGTH)
  for i in range(3):
    np.testing.assert_allclose(batch.action[i, 1:, 0], expected, rtol=1e-6)
  # Action t is chosen at image t - 1.
  shown = batch.image.mean((2, 3, 4)) / 1000
  np.testing.assert_allclose(
    batch.action[:, 1:, 1], shown[:, :-1] + 0.5, rtol=1e-5
  )
  # Side by side is one after the other.
  alone = [play(0.2, keys[i : i + 1], 0.5) for i in range(3)]
  alone = jax.tree.map(lambda *x: np.concatenate(x), *alone)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), alone, batch
  )


def test_an_episode_starts_where_its_key_says_whatever_the_noise():
  keys = jax.random.split(jax.random.key(6), 4)
  env = pendulum(SIZE, LENGTH)
  agent = Agent(
    init=tuple,
    act=lambda params, state, image, key, noise: (jnp.ones(1) * noise, state),
  )
  play = jax.jit(lambda noise: planned_episodes(env, agent, None, keys, noise))
  still, moved = play(0.0).image, play(1.0).image
  np.testing.assert_array_equal(still[:, 0], moved[:, 0])
  assert np.any(np.asarray(still[:, -1]) != np.asarray(moved[:, -1]))
  assert np.any(np.asarray(still[0, 0]) != np.asarray(still[1, 0]))


def toy_parts(config, action_dim) -> Parts:
  """A model of one weight that learns the mean reward, and an echo of it."""
  del config, action_dim

  def init(key, images):
    return {"w": jax.random.normal(key), "grey": images.mean(dtype=jnp.float32)}

  def loss(params, batch, key):
    del key
    loss = jnp.square(params["w"] - batch.reward).mean()
    return loss, {"loss": loss}

  model = WorldModel(init, None, None, None, None, None, None, None, loss)
  agent = echo_agent(lambda params: params["w"])
  return Parts(model, optax.sgd(0.2), agent, None, None)


@pytest.fixture
def toys(monkeypatch):
  monkeypatch.setattr(training, "build", toy_parts)


def grey_env(**options):
  """The counting environment whose every episode begins at grey 64."""
  env = counting_env(**options)
  return env._replace(reset=lambda key: Count(jnp.int32(64), jnp.int32(0)))


def run(key=7, rounds=4, env=None, config=None, **options):
  return fit_on_device(
    env or grey_env(),
    config or tiny_config(),
    rounds=rounds,
    num_envs=2,
    key=jax.random.key(key),
    **options,
  )


def test_the_history_tells_what_was_done(toys):
  rows = []
  state, history = run(callback=rows.append)
  assert rows == history
  column = lambda name: [row[name] for row in history]
  assert column("round") == [0, 1, 2, 3, 4]
  assert column("episodes") == [3, 5, 7, 9, 11]
  assert column("updates") == [0, 3, 6, 9, 12] and state.updates == 12
  # Rewards 0.01 to 0.05, whatever the agent does.
  np.testing.assert_allclose(column("train_return"), 0.15, rtol=1e-5)
  evaluated = [row["round"] for row in history if "eval_return" in row]
  assert evaluated == [2, 4]
  np.testing.assert_allclose(history[4]["eval_return"], 0.15, rtol=1e-5)
  assert abs(history[4]["eval_return_std"]) < 1e-6
  assert column("seconds") == sorted(column("seconds"))
  assert all(
    isinstance(x, int | float) for row in history for x in row.values()
  )


def test_the_last_round_is_evaluated_and_no_other_without_a_schedule(toys):
  _, history = run(rounds=3, config=tiny_config("evaluate.every=0"))
  assert [row["round"] for row in history if "eval_return" in row] == [3]


def test_updates_learn_from_the_episodes(toys):
  # Gradient descent on (w - reward)^2 goes to the mean reward of the chunks:
  # entries 0-3, 1-4 and 2-5 of rewards 0, 0.01 ... 0.05, 0.025 on average.
  state, history = run(config=tiny_config("train.updates_per_collect=40"))
  assert abs(float(state.params["w"]) - 0.025) < 0.01
  assert history[-1]["loss"] < 3e-4 < history[1]["loss"]


def test_episodes_are_played_with_the_latest_weights_and_noise(
  toys, monkeypatch
):
  seen = []
  real = training.add_episodes

  def spy(buffer, episodes):
    jax.debug.callback(lambda a: seen.append(np.asarray(a)), episodes.action)
    return real(buffer, episodes)

  monkeypatch.setattr(training, "add_episodes", spy)
  state, _ = run(rounds=1, config=tiny_config("train.noise=0.25"))
  jax.effects_barrier()
  actions = next(a for a in seen if len(a) == 2)  # the seed episodes are 3
  # The echo: the weight, a tenth more at each decision; grey / 1000 + noise.
  w = float(state.params["w"])
  expected = np.clip(w + 0.1 * np.arange(LENGTH), -1, 1)
  np.testing.assert_allclose(actions[0, 1:, 0], expected, rtol=1e-5)
  shown = (64 + np.arange(LENGTH)) / 1000
  np.testing.assert_allclose(actions[1, 1:, 1], shown + 0.25, rtol=1e-5)


def test_random_collection_does_without_the_agent(toys, monkeypatch):
  calls = []
  real = training.planned_episodes
  monkeypatch.setattr(
    training, "planned_episodes", lambda *a: (calls.append(1), real(*a))[1]
  )
  config = tiny_config("train.collect=random")
  _, history = run(rounds=3, config=config, callback=lambda row: row.update(
    planned=len(calls)
  ))  # fmt: skip
  # The agent plays for the first evaluation, in round 2.
  assert [row["planned"] for row in history] == [0, 0, 1, 1]
  assert [row["episodes"] for row in history] == [3, 5, 7, 9]


def test_everything_is_traced_once(toys, monkeypatch):
  calls, traced = [], []
  counted = lambda function: lambda *a: (calls.append(1), function(*a))[1]
  for name in ("sample_chunks", "add_episodes", "planned_episodes"):
    monkeypatch.setattr(training, name, counted(getattr(training, name)))
  run(callback=lambda row: traced.append(len(calls)))
  # The seed episodes are added as the first state is made, and the first round
  # traces the updates, the episodes and their adding. The first evaluation, in
  # round 2, finds its program there.
  assert traced[0] == 1
  assert traced[1:] == [4, 4, 4, 4]


def test_a_key_decides_a_run(toys):
  env = counting_env()
  (one, first), (two, second) = run(7, env=env), run(7, env=env)
  jax.tree.map(np.testing.assert_array_equal, one, two)
  for a, b in zip(first, second):
    assert {**a, "seconds": 0} == {**b, "seconds": 0}
  other, _ = run(8, env=env)
  assert other.params["w"] != one.params["w"]
  assert other.params["grey"] != one.params["grey"]


def test_the_seed_episodes_are_the_examples_for_the_first_weights(toys):
  # Every episode shows the greys 64 to 69.
  state, _ = run(rounds=1)
  np.testing.assert_allclose(state.params["grey"], 66.5, rtol=1e-6)


def test_gradients_that_stay_bad_end_the_run(toys):
  env = grey_env(reward=lambda state: jnp.nan)
  config = tiny_config("train.updates_per_collect=10")
  with pytest.raises(FloatingPointError, match="the last 10 gradients"):
    run(env=env, config=config)


@pytest.mark.slow
def test_the_model_and_the_planner_run_on_the_device():
  config = tiny_config("optimizer.ema=0.99")
  state, history = run(rounds=2, config=config)
  assert np.isfinite([row["loss"] for row in history[1:]]).all()
  # 8 bits: a byte b becomes b / 256 - 0.5.
  np.testing.assert_allclose(
    state.params["mean_image"], 66.5 / 256 - 0.5, atol=1e-5
  )
  assert state.acting_params is state.average
  np.testing.assert_allclose(history[2]["eval_return"], 0.15, rtol=1e-5)


@pytest.mark.parametrize(
  "overrides, counts, message",
  [
    (["env.size=32"], {}, r"env.size=32 .* images \[16, 16, 3\] .* to 16"),
    (["train.chunk=7"], {}, "chunk=7 is longer than the 6 entries"),
    ([], {"rounds": 0}, "rounds must be at least 1, got 0"),
    ([], {"num_envs": 0}, "num_envs must be at least 1, got 0"),
    (["planner.cem.elites=99"], {}, "config.planner.cem: elites"),
    (
      ["train.updates_per_collect=0", "train.updates_per_decision=1"],
      {},
      "set config.train.updates_per_collect",
    ),
  ],
)
def test_what_cannot_be_trained_is_refused_in_a_line(
  overrides, counts, message
):
  counts = {"rounds": 1, "num_envs": 1} | counts
  with pytest.raises(ValueError, match=message) as error:
    fit_on_device(
      counting_env(), tiny_config(*overrides), key=jax.random.key(0), **counts
    )
  assert "\n" not in str(error.value)


def test_nothing_in_an_episode_calls_the_host():
  env, config = counting_env(), tiny_config()
  parts = build(config, env.action_dim)
  params = jax.eval_shape(parts.model.init, jax.random.key(0))
  keys = jax.random.split(jax.random.key(0), 2)
  program = jax.jit(lambda p: planned_episodes(env, parts.agent, p, keys, 0.3))
  text = program.lower(params).as_text()
  assert "while" in text and "callback" not in text


@pytest.mark.slow
def test_the_pendulum_is_learned():
  # 600 updates on up to 48 episodes. A random return is about 1 of 50, and what
  # swings up half-way gets more than 8.
  config = jplanet.load_config(
    "planet.py:cpu",
    [
      "model.belief=64", "model.hidden=64", "model.state=16",
      "planner.horizon=15", "train.chunk=24", "train.updates_per_collect=100",
      "train.updates_per_decision=0",
      "evaluate.every=0", "evaluate.episodes=8", "planner.name=cem",
      "planner.cem.candidates=100", "planner.cem.elites=10",
      "planner.cem.iterations=3", "planner.cem.include_mean=true",
    ],
  )  # fmt: skip
  _, history = fit_on_device(
    pendulum(32, 50), config, rounds=6, num_envs=8, key=jax.random.key(0)
  )
  assert history[-1]["eval_return"] > 8
  assert history[-1]["eval_return"] > 4 * history[0]["train_return"]
