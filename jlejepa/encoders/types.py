"""What encoders and projectors are: tuples of pure functions.

Axis letters: `N` images (or any inputs), `S` image side, `C` channels, `D`
features, `K` projector width.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax

Array = jax.Array
Key = jax.Array
Variables = dict[str, Any]


class Features(NamedTuple):
  """What an encoder makes of a batch, in float32.

  Attributes:
    embedding: `[N, D]`, what the projector and the probes take.
    previous: `[N, D2]`, the same one block or stage earlier: the protocol of
      the paper joins the last two layers.
    tokens: `[N, h, w, D]`, the last map or the patch tokens, before pooling.
  """

  embedding: Array
  previous: Array
  tokens: Array


class Encoder(NamedTuple):
  """An encoder as a pair of pure functions.

  `variables` is `{"params": ..., "batch_stats": ...}`; the second is empty for
  an encoder without BatchNorm.

  Attributes:
    init: `(key, images [N, S, S, C]) -> variables`. Only the shape of the
      images counts. Put it under jit: it is many small operations.
    apply: `(variables, images, *, train=False, key=None) -> (Features,
      batch_stats)`. With `train` the statistics are those of the batch and the
      running ones return updated; without it they return as they came. The
      key is for drop path, in training alone.
  """

  init: Callable[[Key, Array], Variables]
  apply: Callable[..., tuple[Features, Any]]


class Projector(NamedTuple):
  """A projector, as an `Encoder` is made.

  Attributes:
    init: `(key, embeddings [N, D]) -> variables`.
    apply: `(variables, embeddings, *, train=False) -> ([N, K], batch_stats)`.
  """

  init: Callable[[Key, Array], Variables]
  apply: Callable[..., tuple[Array, Any]]
