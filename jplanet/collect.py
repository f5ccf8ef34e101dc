"""Episodes from environments in lockstep, with random or planned actions."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jplanet.agent import Agent
from jplanet.replay import Episode
from jplanet.types import Key, Params

# Candidates of several environments that a CPU plans for at once; of more, each
# takes longer.
CANDIDATES_AT_ONCE = 2000


class Policy(NamedTuple):
  """Actions for `N` environments at once.

  Attributes:
    init: `() -> carry`.
    act: `(carry, images [N, S, S, 3], t) -> (actions [N, A], carry)`.
  """

  init: Callable[[], Any]
  act: Callable[[Any, np.ndarray, int], tuple[np.ndarray, Any]]


def random_policy(seeds: list[int], action_dim: int) -> Policy:
  """Draws uniform actions in `[-1, 1]`, one generator per environment."""

  def init():
    return [np.random.default_rng([seed, 1]) for seed in seeds]

  def act(rngs, images, t):
    del images, t
    draw = [rng.uniform(-1, 1, action_dim).astype(np.float32) for rng in rngs]
    return np.stack(draw), rngs

  return Policy(init, act)


def for_each(function: Callable, candidates: int) -> Callable:
  """Maps `function` over the first axis of its arguments, one an environment.

  All at once, but on a CPU no more than keep it busy where each of them scores
  that many candidates.
  """

  def mapped(*args):
    count = len(jax.tree.leaves(args)[0])
    few = max(1, CANDIDATES_AT_ONCE // candidates)
    if jax.default_backend() != "cpu" or count <= few:
      return jax.vmap(function)(*args)
    return jax.lax.map(lambda x: function(*x), args, batch_size=few)

  return mapped


def make_batched_act(agent: Agent, candidates: int) -> Callable:
  """Compiles the agent for environments side by side.

  Args:
    agent: for one environment.
    candidates: how many action sequences its planner scores at a time.

  Returns:
    `act(params, states, images [N, S, S, 3], keys [N], t, noise) -> (actions
    [N, A], states)`; environment `i` uses `fold_in(keys[i], t)` and nothing of
    its neighbours.
  """

  def act(params, states, images, keys, t, noise):
    def one(state, image, key):
      return agent.act(params, state, image, jax.random.fold_in(key, t), noise)

    return for_each(one, candidates)(states, images, keys)

  return jax.jit(act)


def planned_policy(
  batched_act: Callable,
  agent: Agent,
  params: Params,
  key: Key,
  seeds: list[int],
  noise: float,
) -> Policy:
  """Plans with `params`, adding Gaussian noise.

  Args:
    batched_act: `agent.act` over environments, compiled.
    agent: whose `init` begins an episode.
    params: of the world model.
    key: with an episode's seed it makes the key of all its decisions.
    seeds: one per environment.
    noise: its standard deviation; 0 acts as planned.
  """
  keys = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(
    key, jnp.array(seeds, jnp.uint32)
  )
  noise = jnp.float32(noise)
  # Beside the weights, where `act` will return it: else the second decision
  # with weights from a checkpoint would compile again.
  place = jax.tree.leaves(params)[0].sharding

  def init():
    tile = lambda x: jnp.tile(x, (len(seeds),) + (1,) * jnp.ndim(x))
    return jax.device_put(jax.tree.map(tile, agent.init()), place)

  def act(carry, images, t):
    actions, carry = batched_act(
      params, carry, images, keys, jnp.int32(t), noise
    )
    return np.asarray(actions), carry

  return Policy(init, act)


def collect(
  envs,
  seeds: list[int],
  policy: Policy,
  *,
  should_stop: Callable[[], bool] = lambda: False,
) -> list[Episode] | None:
  """Runs one episode in every environment.

  Episodes that a worker process took with it are played again, all together:
  the seeds and the policy make them what they would have been.

  Args:
    envs: environments in lockstep, as `jplanet.envs.Lockstep`.
    seeds: one per environment; an episode is a function of its seed and its
      actions.
    policy: where actions come from.
    should_stop: asked at every decision.

  Returns:
    One `Episode` per environment, or None if it was asked to stop.
  """
  episodes = _play(envs, seeds, policy, should_stop)
  while episodes is not None and _any_lost(envs):
    # The pool gives up after a few.
    episodes = _play(envs, seeds, policy, should_stop)
  return episodes


def _play(envs, seeds, policy, should_stop):
  images = envs.reset(seeds)
  count = len(images)
  carry = policy.init()
  done = np.zeros(count, bool)
  zero = (np.zeros(envs.action_dim, np.float32), np.float32(0))
  entries = [[(images[i].copy(), *zero)] for i in range(count)]
  t = 0
  while not done.all() and not _any_lost(envs):
    if should_stop():
      return None
    actions, carry = policy.act(carry, images, t)
    running = ~done
    images, rewards, done = envs.step(actions)
    for i in np.flatnonzero(running):
      entries[i].append((images[i].copy(), actions[i], rewards[i]))
    t += 1
  return [_episode(*zip(*rows)) for rows in entries]


def _any_lost(envs) -> bool:
  return bool(np.any(getattr(envs, "lost", False)))


def _episode(images, actions, rewards) -> Episode:
  return Episode(
    image=np.stack(images),
    action=np.stack(actions).astype(np.float32),
    reward=np.array(rewards, np.float32),
  )
