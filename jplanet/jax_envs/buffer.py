"""Episodes kept on the device, and chunks drawn from them there."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jplanet.jax_envs.base import JaxEnv
from jplanet.types import Array, Batch, Key


class EpisodeBuffer(NamedTuple):
  """A store of static size that fills up.

  Attributes:
    episodes: a `Batch` with leading `[E, T + 1]`; images stay uint8.
    filled: int32 `[]`, how many of the `E` hold an episode.
  """

  episodes: Batch
  filled: Array


def empty_buffer(env: JaxEnv, capacity: int) -> EpisodeBuffer:
  """Makes room for `capacity` whole episodes of `env`."""
  image = jax.eval_shape(lambda k: env.render(env.reset(k)), jax.random.key(0))
  leading = (capacity, env.episode_length + 1)
  return EpisodeBuffer(
    episodes=Batch(
      image=jnp.zeros((*leading, *image.shape), image.dtype),
      action=jnp.zeros((*leading, env.action_dim), jnp.float32),
      reward=jnp.zeros(leading, jnp.float32),
    ),
    filled=jnp.zeros((), jnp.int32),
  )


def add_episodes(buffer: EpisodeBuffer, episodes: Batch) -> EpisodeBuffer:
  """Appends episodes `[N, T + 1]`; the caller sees to it that they fit."""
  write = lambda store, new: jax.lax.dynamic_update_slice_in_dim(
    store, new, buffer.filled, axis=0
  )
  return EpisodeBuffer(
    episodes=jax.tree.map(write, buffer.episodes, episodes),
    filled=buffer.filled + len(episodes.reward),
  )


def sample_chunks(
  buffer: EpisodeBuffer, key: Key, batch: int, chunk: int
) -> Batch:
  """Draws chunks as `jplanet.replay.Replay.sample` does, inside a program.

  Uniform over the filled episodes, then over the offsets of a chunk, the last
  one included; a chunk never crosses an end.

  Args:
    buffer: with at least one episode.
    key: consumed.
    batch: `B`.
    chunk: entries of a chunk, 1 to `T + 1`.

  Returns:
    A `Batch` with leading `[B, chunk]`.

  Raises:
    ValueError: an episode is shorter than a chunk.
  """
  length = buffer.episodes.reward.shape[1]
  if not 1 <= chunk <= length:
    raise ValueError(
      f"a chunk of {chunk} entries does not fit an episode of {length}: set"
      f" train.chunk between 1 and {length}"
    )
  episode_key, offset_key = jax.random.split(key)
  numbers = jax.random.randint(episode_key, (batch,), 0, buffer.filled)
  offsets = jax.random.randint(offset_key, (batch,), 0, length - chunk + 1)

  def cut(store, number, offset):
    rest = store.shape[2:]
    start = (number, offset, *(0 for _ in rest))
    return jax.lax.dynamic_slice(store, start, (1, chunk, *rest))[0]

  return jax.tree.map(
    lambda store: jax.vmap(lambda n, o: cut(store, n, o))(numbers, offsets),
    buffer.episodes,
  )
