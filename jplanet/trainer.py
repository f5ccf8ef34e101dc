"""The phases of training and their order; the state of a run on the host."""

import sys
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jlejepa.runtime.checkpoint import Checkpoints
from jlejepa.runtime.errors import require
from jlejepa.runtime.metrics import MetricsWriter
from jlejepa.runtime.nonfinite import (
  MAX_SKIPPED,
  describe_skipped,
  save_bad_update,
)
from jlejepa.runtime.progress import Progress
from jlejepa.runtime.stop import StopSignal
from jplanet import report
from jplanet.collect import planned_policy, random_policy
from jplanet.collector import Collector
from jplanet.counters import Counters
from jplanet.learner import check_gradients, follow, make_train_step
from jplanet.replay import Episode, Replay
from jplanet.setup import (
  EVALUATE,
  TRAIN,
  Parts,
  build,
  episode_seeds,
)
from jplanet.setup_envs import require_chunk

UPDATES_PER_WAIT = 20
# Diverging simulations in a row, after which something else must be wrong.
MAX_DIVERGED = 20


class Trainer:
  """The loop's state on the host; each method is one phase of the loop."""

  def __init__(self, config, folder, factory, quiet, callback, stack):
    self.config, self.folder, self.factory = config, folder, factory
    self.quiet, self.callback = quiet, callback
    # First: all that follows may take long, and a signal must not end it.
    self.stop = stack.enter_context(StopSignal(config.runtime.max_minutes))
    self.parts: Parts = build(config, factory.action_dim)
    train, env = config.train, config.env
    size = (env.size, env.size, 3)
    self.replay = Replay(
      size,
      factory.action_dim,
      folder=folder.episodes,
      max_bytes=train.replay_bytes,
    )
    group = lambda count: stack.enter_context(
      Collector(lambda: factory.group(count, workers=env.workers))
    )
    self.collector = group(env.num_envs)
    self.evaluator = group(config.evaluate.episodes * len(factory.tasks))
    self.key = jax.random.key(config.seed)
    self.step = jax.jit(
      make_train_step(
        self.parts.model, self.parts.optimizer, ema=config.optimizer.ema
      ),
      donate_argnums=0,
    )
    self.checkpoints = stack.enter_context(Checkpoints(folder.checkpoints))
    self.state, self.counters = None, Counters()
    self.row: dict[str, Any] = {}
    self.last_row: dict[str, Any] = {}
    self.last_saved: Counters | None = None
    self._restore()
    self.metrics = stack.enter_context(
      MetricsWriter(
        folder.path, config.runtime.tensorboard, step_key="env_steps"
      )
    )
    self.metrics.truncate_after("env_steps", self.counters.env_steps)
    tasks = len(factory.tasks)
    self.seed_episodes = _round_up(train.seed_episodes * tasks, env.num_envs)
    self.max_episodes = train.max_episodes * tasks
    self.progress = Progress(
      total_steps=None if config.runtime.max_minutes else self.max_episodes,
      total_minutes=config.runtime.max_minutes or None,
      elapsed_minutes=self.counters.minutes,
      quiet=quiet,
      unit="episode",
    )

  # The loop: what comes next is a function of the counters alone, so that a
  # restored run goes on where the checkpoint stands.

  def run(self) -> None:
    """Runs phases until the episodes or the time are used up."""
    while not self.stop.requested:
      self.checkpoints.check()
      c = self.counters
      if c.episodes < self.seed_episodes:
        self.collect(random=True)
        continue
      if c.episodes >= self.max_episodes:
        break
      if self.state is None:
        self.init()
      phase = (c.episodes - self.seed_episodes) // self.config.env.num_envs
      target = (phase + 1) * self.config.train.updates_per_collect
      target += round(c.decisions * self.config.train.updates_per_decision)
      every = self.config.evaluate.every
      if c.updates < target:
        self.fit(target)
      elif every and (phase + 1) // every > c.evaluations:
        self.evaluate()
      else:
        self.collect(random=self.config.train.collect == "random")
        if (phase + 1) % self.config.runtime.checkpoint_every == 0:
          self.play_beside()
          self.save()

  def init(self) -> None:
    """Makes the first weights, with the seed episodes as examples."""
    longest = max(len(e.image) for e in self.replay.episodes)
    require_chunk(self.config.train.chunk, longest)
    images = np.concatenate([e.image for e in self.replay.episodes])
    self.state = self.parts.init(jax.random.fold_in(self.key, 0), images=images)

  def fit(self, target: int) -> None:
    """Updates the model on chunks of the replay, up to `target` updates."""
    start, first = time.monotonic(), self.counters.updates
    metrics = {}
    self.play_beside()
    for update in range(first, target):
      self.state, metrics = self.step(self.state, **self.step_inputs(update))
      self.counters = self.counters._replace(updates=update + 1)
      if update % UPDATES_PER_WAIT == 0:
        # Without waiting, the host would queue updates far past a stop.
        jax.block_until_ready(self.state.updates)
        self._check_gradients()
        self._show()
      if self.stop.requested:
        break
    self.row |= {name: float(value) for name, value in metrics.items()}
    self.row["seconds_fit"] = time.monotonic() - start
    self._check_gradients()

  def _check_gradients(self) -> None:
    c, total = self.counters, int(self.state.skipped_total)
    if total > c.skipped_total:
      self._say(describe_skipped(total, c.skipped_total, c.updates))
      self.counters = c._replace(skipped_total=total)
    if int(self.state.skipped) >= MAX_SKIPPED:
      update = int(self.state.updates) - 1
      inputs = self.step_inputs(update)
      inputs["state"] = self.state.replace(updates=np.int32(update))
      path = save_bad_update(self.folder.path, update, inputs)
      self._say(f"update {update} is kept in {path}: see jplanet.rerun")
    check_gradients(self.state)

  def step_inputs(self, update: int) -> dict[str, Any]:
    """Returns batch and key of an update; `self.step` takes the state first."""
    train = self.config.train
    rng = np.random.default_rng([self.config.seed, update])
    return {
      "batch": self.replay.sample(rng, train.batch, train.chunk),
      "key": jax.random.fold_in(self.key, 1),
    }

  def collect(self, *, random: bool) -> None:
    """Adds one episode of every environment to the replay."""
    if not self.collector.under_way:
      self.start_round(random=random)
    played = self.collector.finish(lambda: self.stop.requested)
    if played is None:
      return
    self._count_faults(played.diverged, played.restarts)
    episodes = played.episodes
    for episode in episodes:
      self.replay.add(episode)
    self.counters = self.counters.add_episodes(
      [len(e.reward) - 1 for e in episodes], self.factory.action_repeats
    )
    returns = [float(e.reward.sum()) for e in episodes]
    self.row |= {
      "train_return": float(np.mean(returns)),
      "replay_bytes": self.replay.nbytes,
      "seconds_collect": played.seconds,
    }
    if self.state is not None:
      self.state = follow(self.state)
    self._log()

  def play_beside(self) -> None:
    """Begins the next round beside what follows, if the run overlaps them."""
    if (
      self.config.train.overlap
      and not self.collector.under_way
      and not self.stop.requested
      and self.counters.episodes < self.max_episodes
    ):
      self.start_round(random=self.config.train.collect == "random")

  def start_round(self, *, random: bool) -> None:
    """Begins the next episodes: of random actions, or planned."""
    seeds = episode_seeds(
      self.config.seed,
      TRAIN,
      self.counters.episodes,
      self.config.env.num_envs,
    )
    if random:
      policy = random_policy(seeds, self.factory.action_dim)
    else:
      # A copy: the updates beside it take the buffers of the state.
      params = jax.tree.map(jnp.copy, self.state.collecting_params)
      policy = self._policy(params, seeds, self.config.train.noise)
    self.collector.start(seeds, policy)

  def _count_faults(self, diverged: int, restarts: int) -> None:
    count = self.config.env.num_envs
    self._tell_faults("collecting", diverged, restarts, count)
    self.counters = self.counters.add_faults(diverged, restarts, count)
    require(
      self.counters.diverged < MAX_DIVERGED,
      f"the simulation of the last {self.counters.diverged} episodes diverged:"
      " look at config.env.action_repeat and at the environment itself",
    )

  def _tell_faults(self, what, diverged, restarts, count) -> None:
    if diverged:
      self._say(
        f"{what}: {diverged} of {count} episodes were cut short by a diverging"
        " simulation"
      )
    if restarts:
      self._say(f"{what}: {restarts} worker processes were replaced")

  def evaluate(self) -> list[Episode] | None:
    """Runs noise-free episodes on fresh seeds and notes their returns."""
    c, count = self.counters, self.evaluator.num_envs
    seeds = episode_seeds(
      self.config.seed, EVALUATE, c.evaluations * count, count
    )
    self.evaluator.start(
      seeds, self._policy(self.state.acting_params, seeds, 0.0)
    )
    played = self.evaluator.finish(lambda: bool(self.stop.exit_code))
    if played is None:
      return None
    episodes = played.episodes
    returns = [float(e.reward.sum()) for e in episodes]
    self._tell_faults("evaluating", played.diverged, played.restarts, count)
    self.counters = c._replace(
      minutes=self.stop.minutes,
      evaluations=c.evaluations + 1,
      eval_physics_errors=c.eval_physics_errors + played.diverged,
      worker_restarts=c.worker_restarts + played.restarts,
    ).add_scores(self.factory.tasks, returns)
    report.write_all_scores(
      self.folder,
      self.counters,
      seed=self.config.seed,
      renderer=self.factory.renderer,
    )
    self.row |= {
      "eval_return": float(np.mean(returns)),
      "eval_return_std": float(np.std(returns)),
      "seconds_evaluate": played.seconds,
    }
    return episodes

  def save(self) -> None:
    """Begins a checkpoint of everything that a resume needs."""
    counts = self.counters._replace(minutes=0.0)
    if self.last_saved == counts or not counts.episodes:
      return
    start = time.monotonic()
    self.counters = self.counters._replace(minutes=self.stop.minutes)
    # There is no state before the seed episodes are complete, and what stands
    # for it is never looked at.
    untrained = self.state is None
    self.checkpoints.save_beside(
      self.counters.updates,
      _zeros(self.template) if untrained else self.state,
      {
        "counters": self.counters._asdict(),
        "row": self.row,
        "untrained": untrained,
        "episodes": self.replay.digests,
      },
    )
    self.last_saved = counts
    self.row["seconds_save"] = time.monotonic() - start

  def finish(self) -> dict[str, Any]:
    """Saves, evaluates a last time, and draws the pictures."""
    self.collector.cancel()
    self.save()
    self.checkpoints.wait()
    self.progress.close()
    result = self.row | self.counters.numbers()
    result["exit_code"] = self.stop.exit_code
    if self.stop.exit_code:
      self._say(f"stopped by {self.stop.reason}; the same command goes on")
      return result
    if self.state is not None:
      episodes = self.evaluate()
      result["exit_code"] = self.stop.exit_code
      if episodes is not None:
        result |= self.row | self.counters.numbers() | {"exit_code": 0}
        result["pictures"] = report.write_pictures(
          self.folder,
          self.parts.model,
          self.state.acting_params,
          episodes,
          jax.random.fold_in(self.key, 3),
        )
    return result

  def _policy(self, params, seeds, noise):
    return planned_policy(
      self.parts.batched_act,
      self.parts.agent,
      params,
      jax.random.fold_in(self.key, 2),
      seeds,
      noise,
    )

  def _restore(self) -> None:
    self.template = jax.eval_shape(self.parts.init, self.key)
    restored, digests = self.checkpoints.restore(self.template), []
    if restored is not None:
      _, self.state, extra = restored
      self.counters, self.row = Counters(**extra["counters"]), extra["row"]
      self.last_saved = self.counters._replace(minutes=0.0)
      self.stop.resume(self.counters.minutes)
      digests = extra["episodes"]
      if extra["untrained"]:
        self.state = None
    damaged = self.replay.load(self.counters.episodes, digests)
    for line in damaged:
      self._say(f"left out a damaged episode: {line}")
    # Not added: those set aside before are among them, as missing ones.
    self.counters = self.counters._replace(damaged_episodes=len(damaged))
    if restored is not None:
      self._say(
        f"going on from {self.counters.episodes} episodes,"
        f" {self.counters.updates} updates"
      )

  def _log(self) -> None:
    self.counters = self.counters._replace(minutes=self.stop.minutes)
    row = self.counters.numbers() | self.row
    self.metrics.write(row)
    if self.callback is not None:
      self.callback(row)
    self.row = {}
    self.last_row = row
    self._show()

  def _show(self) -> None:
    text = report.describe(self.last_row, self.counters)
    self.progress.update(self.counters.episodes, text)

  def _say(self, text: str) -> None:
    if not self.quiet:
      print(text, file=sys.stderr)


def _zeros(template):
  return jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), template)


def _round_up(number: int, multiple: int) -> int:
  return -(-number // multiple) * multiple
