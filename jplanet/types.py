"""The data that passes between the parts of an agent.

Axis letters, used in every docstring of this package:
`B` batch, `T` time, `H` planning horizon, `N` candidates, `K` elites,
`A` action, `S` image side, `E` embedding, `F` features.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax

Array = jax.Array
Key = jax.Array
Params = Any
State = Any
ScoreFn = Callable[[Array, Key], Array]


class Batch(NamedTuple):
  """A chunk of experience, or a batch of chunks with a leading `B`.

  Entry `t` holds the action that *led to* the observation, the observation,
  and the reward received on arriving there. Entry 0 of an episode is the reset:
  a zero action, the first image, a zero reward. So the latent state at `t` is a
  function of the state at `t - 1` and `action[t]`, and both `image[t]` and
  `reward[t]` are decoded from the state at `t`.

  Attributes:
    image: uint8 `[T, S, S, 3]`.
    action: float32 `[T, A]`, as executed (noise and clipping included).
    reward: float32 `[T]`, summed over the action repeat.
  """

  image: Array
  action: Array
  reward: Array


class Plan(NamedTuple):
  """What every planner returns.

  Attributes:
    actions: `[H, A]`, the sequence to execute; an agent takes the first.
    score: `[]`, the planner's own estimate of the return of its best
      candidates (the mean over the last elites; the best for planners that
      execute the best).
    mean: `[H, A]`, the centre of the last search distribution.
    std: `[H, A]`, its spread.
    elites: `[K, H, A]`, the best candidates of the last iteration, best first.
  """

  actions: Array
  score: Array
  mean: Array
  std: Array
  elites: Array


class WorldModel(NamedTuple):
  """A world model as a tuple of pure functions.

  PlaNet's RSSM and its ablations all return one; agents, planners, evaluation
  and videos cannot tell them apart. Every function but
  `loss` handles one example: `jax.vmap` adds batches.

  Attributes:
    init: `(key, images=None) -> params`. `images`, uint8 `[N, S, S, 3]`, are
      examples from which a model may take constants (a mean image).
    initial: `() -> state`, the state before the first observation.
    encode: `(params, image, key) -> embed [E]` of one uint8 image
      `[S, S, 3]`; the key is for dequantisation noise.
    observe: `(params, state, action, embed, key) -> state`, one filtering
      step; `action [A]` led from the state to the embedded observation.
    imagine: `(params, state, action, key) -> state`, one step of the prior.
      Without a key (`None`) it takes the mean instead of a sample.
    reward: `(params, state) -> []`, the expected reward on arriving in a state.
    decode: `(params, state) -> [S, S, 3]`, the expected image in `[0, 1]`; None
      for a model without a decoder.
    features: `(state) -> [F]`, what the heads see.
    loss: `(params, batch, key) -> (loss, metrics)` on a `Batch` with a leading
      `B`; metrics are scalars with flat names.
    prepare: `(params) -> params` that `imagine` and `reward` take too, and no
      other function: weights cast and joined once for all steps of a rollout.
      Rollouts give them these alone, so who replaces one of the two for other
      parameters replaces `prepare` as well.
  """

  init: Callable[..., Params]
  initial: Callable[[], State]
  encode: Callable[[Params, Array, Key], Array]
  observe: Callable[[Params, State, Array, Array, Key], State]
  imagine: Callable[[Params, State, Array, Key | None], State]
  reward: Callable[[Params, State], Array]
  decode: Callable[[Params, State], Array] | None
  features: Callable[[State], Array]
  loss: Callable[[Params, Batch, Key], tuple[Array, dict[str, Array]]]
  prepare: Callable[[Params], Params] = lambda params: params
