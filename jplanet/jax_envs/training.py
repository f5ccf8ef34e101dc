"""PlaNet's loop (Algorithm 1) for environments that compile, on the device.

Experience is played, kept and learned from without leaving the accelerator: a
round is one compiled call of updates and one of whole episodes, and of all that
only a few numbers reach the host.
"""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from jlejepa.runtime.errors import require
from jplanet.agent import Agent
from jplanet.check import check_config
from jplanet.jax_envs.base import JaxEnv
from jplanet.jax_envs.buffer import (
  EpisodeBuffer,
  add_episodes,
  empty_buffer,
  sample_chunks,
)
from jplanet.jax_envs.rollout import episode
from jplanet.learner import (
  TrainState,
  check_gradients,
  init_state,
  make_train_step,
)
from jplanet.setup import Parts, build
from jplanet.types import Array, Batch, Key, Params


class Programs(NamedTuple):
  """The loop's compiled calls.

  Attributes:
    start: `(init_key, seed_key) -> (state, buffer, returns [N])`, the seed
      episodes and the first weights.
    fit: `(state, buffer, key) -> (state, metrics)`, the updates of a round.
    play: `(params, keys [N], noise) -> Batch` of planned episodes.
    collect: `(params, keys [N]) -> Batch`, episodes to learn from.
    add: `(buffer, episodes) -> buffer`, in place.
  """

  start: Callable
  fit: Callable
  play: Callable
  collect: Callable
  add: Callable


def random_episodes(env: JaxEnv, keys: Key) -> Batch:
  """Plays one episode per key `[N]` with uniform actions in `[-1, 1]`.

  Returns:
    A `Batch` with leading `[N, T + 1]`.
  """

  def act(memory, image, key):
    del image
    return jax.random.uniform(key, (env.action_dim,), minval=-1), memory

  return jax.vmap(lambda key: episode(env, tuple, act, key))(keys)


def planned_episodes(
  env: JaxEnv, agent: Agent, params: Params, keys: Key, noise: Array
) -> Batch:
  """Plays one episode per key with the agent: render, filter, plan, step.

  To be jitted: the whole of all episodes is one program.

  Args:
    env: what to play.
    agent: from `jplanet.agent.make_agent`.
    params: of its world model.
    keys: `[N]`, consumed; the start of an episode depends on its key alone.
    noise: standard deviation of the exploration noise; 0 to evaluate.

  Returns:
    A `Batch` with leading `[N, T + 1]`.
  """

  def act(memory, image, key):
    return agent.act(params, memory, image, key, noise)

  return jax.vmap(lambda key: episode(env, agent.init, act, key))(keys)


def fit_on_device(
  env: JaxEnv,
  config: ConfigDict,
  *,
  rounds: int,
  num_envs: int,
  key: Key,
  callback: Callable[[dict[str, Any]], None] | None = None,
) -> tuple[TrainState, list[dict[str, Any]]]:
  """Trains PlaNet on an environment that compiles.

  A round makes `train.updates_per_collect` updates and plays one episode in
  each environment with exploration noise. After every `evaluate.every` rounds,
  and after the last, `evaluate.episodes` noise-free episodes are played with
  the same weights. Nothing is written; see `jplanet.fit` for runs that resume.

  Args:
    env: what to learn; its images have the side `env.size` of the config.
    config: as `configs/planet.py` makes it. Of its `env` only `size` counts;
      `task`, `runtime` and the budgets of `train` do not.
    rounds: of fitting and collecting.
    num_envs: episodes played side by side. One program serves evaluation
      too if it is also `evaluate.episodes`.
    key: decides everything; consumed.
    callback: called on the host with every row of the history.

  Returns:
    The train state, whose `acting_params` an agent uses, and the history: a
    row for the seed episodes, whose `train_return` is that of random actions,
    then one for each round with `round`, `episodes`, `updates`, `seconds`,
    `train_return`, the means of the round's metrics and, where it was
    evaluated, `eval_return` and `eval_return_std`.

  Raises:
    UserError: for a configuration, a size or a number that cannot be used,
      before anything is compiled.
    NonFiniteError: after `nonfinite.MAX_SKIPPED` bad gradients in a row.
  """
  _check(env, config, rounds, num_envs)
  capacity = config.train.seed_episodes + rounds * num_envs
  programs = _compile(env, config, build(config, env.action_dim), capacity)
  init_key, seed_key, fit_key, collect_key, evaluate_key = jax.random.split(
    key, 5
  )
  history, begin = [], time.monotonic()

  def note(state: TrainState, buffer: EpisodeBuffer, **row) -> None:
    row["updates"] = int(state.updates)
    row["episodes"] = int(buffer.filled)
    row["seconds"] = time.monotonic() - begin
    history.append(row)
    if callback is not None:
      callback(row)

  state, buffer, returns = programs.start(init_key, seed_key)
  note(state, buffer, round=0, train_return=float(returns.mean()))
  every, count = config.evaluate.every, config.evaluate.episodes
  for number in range(1, rounds + 1):
    state, metrics = programs.fit(state, buffer, fit_key)
    row = {name: float(value) for name, value in metrics.items()}
    check_gradients(state)
    if number == rounds or (every and number % every == 0):
      keys = jax.random.split(jax.random.fold_in(evaluate_key, number), count)
      returns = programs.play(state.acting_params, keys, 0.0).reward.sum(1)
      row["eval_return"] = float(returns.mean())
      row["eval_return_std"] = float(returns.std())
    keys = jax.random.split(jax.random.fold_in(collect_key, number), num_envs)
    episodes = programs.collect(state.acting_params, keys)
    buffer = programs.add(buffer, episodes)
    row["train_return"] = float(episodes.reward.sum(1).mean())
    note(state, buffer, round=number, **row)
  return state, history


def _compile(
  env: JaxEnv, config: ConfigDict, parts: Parts, capacity: int
) -> Programs:
  train, ema = config.train, config.optimizer.ema
  step = make_train_step(parts.model, parts.optimizer, ema=ema)

  def start(init_key: Key, seed_key: Key):
    keys = jax.random.split(seed_key, train.seed_episodes)
    seeds = random_episodes(env, keys)
    buffer = add_episodes(empty_buffer(env, capacity), seeds)
    images = seeds.image.reshape(-1, *seeds.image.shape[2:])
    state = init_state(
      init_key, parts.model, parts.optimizer, images=images, ema=ema
    )
    return state, buffer, seeds.reward.sum(1)

  def fit(state: TrainState, buffer: EpisodeBuffer, key: Key):
    sample_key, step_key = jax.random.split(key)

    def update(state, _):
      chunk_key = jax.random.fold_in(sample_key, state.updates)
      batch = sample_chunks(buffer, chunk_key, train.batch, train.chunk)
      return step(state, batch, step_key)

    state, metrics = jax.lax.scan(
      update, state, None, length=train.updates_per_collect
    )
    return state, jax.tree.map(jnp.mean, metrics)

  # One program for both uses: they differ in a number alone.
  play = jax.jit(
    lambda params, keys, noise: planned_episodes(
      env, parts.agent, params, keys, noise
    )
  )
  if train.collect == "random":
    draw = jax.jit(lambda keys: random_episodes(env, keys))
    collect = lambda params, keys: draw(keys)
  else:
    collect = lambda params, keys: play(params, keys, train.noise)
  return Programs(
    start=jax.jit(start),
    fit=jax.jit(fit, donate_argnums=0),
    play=play,
    collect=collect,
    add=jax.jit(add_episodes, donate_argnums=0),
  )


def _check(env: JaxEnv, config: ConfigDict, rounds: int, num_envs: int) -> None:
  check_config(config)
  require(rounds >= 1, f"rounds must be at least 1, got {rounds}")
  require(num_envs >= 1, f"num_envs must be at least 1, got {num_envs}")
  require(
    config.train.updates_per_collect > 0,
    "training on the device makes the same number of updates in every round:"
    " set config.train.updates_per_collect, and updates_per_decision to 0",
  )
  image = jax.eval_shape(lambda k: env.render(env.reset(k)), jax.random.key(0))
  size = config.env.size
  require(
    image.shape == (size, size, 3),
    f"config.env.size={size} does not fit the images {list(image.shape)} of"
    f" {env.name}: set it to {image.shape[0]}",
  )
  entries = env.episode_length + 1
  require(
    config.train.chunk <= entries,
    f"config.train.chunk={config.train.chunk} is longer than the {entries}"
    f" entries of an episode of {env.name}: set it lower",
  )
