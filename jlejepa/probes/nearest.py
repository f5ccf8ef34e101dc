"""Nearest neighbours among frozen features."""

from typing import Literal

import numpy as np

CHUNK = 1024


def neighbours(
  queries: np.ndarray,
  bank: np.ndarray,
  k: int,
  *,
  metric: Literal["cosine", "euclidean"] = "cosine",
  centre: bool = True,
) -> tuple[np.ndarray, np.ndarray]:
  """Finds the nearest rows of a bank, some queries at a time.

  Args:
    queries: `[M, D]`.
    bank: `[N, D]`.
    k: how many, from 1 to `N`.
    metric: by the angle, or by the distance.
    centre: subtract the bank's mean from both; distances do not see it.

  Returns:
    Indices into the bank `[M, k]`, nearest first, and float32 `[M, k]`: cosines
    (0 for a vector of zeros), or distances.

  Raises:
    ValueError: for another metric, or `k` outside `1 .. N`.
  """
  if metric not in ("cosine", "euclidean"):
    raise ValueError(f"metric must be cosine or euclidean, got {metric!r}")
  if not 1 <= k <= len(bank):
    raise ValueError(f"k must be from 1 to the {len(bank)} samples, got {k}")
  # Also before distances, where a large mean would cost precision.
  if centre or metric == "euclidean":
    mean = bank.mean(axis=0)
    queries, bank = queries - mean, bank - mean
  if metric == "cosine":
    queries, bank = _unit(queries), _unit(bank)
  squares = np.sum(bank**2, axis=1)
  indices = np.empty((len(queries), k), np.int64)
  values = np.empty((len(queries), k), np.float32)
  for start in range(0, len(queries), CHUNK):
    chunk = queries[start : start + CHUNK]
    inner = chunk @ bank.T
    if metric == "cosine":
      far = -inner
    else:
      far = np.sum(chunk**2, axis=1)[:, None] - 2 * inner + squares
    found = np.argpartition(far, k - 1, axis=1)[:, :k]
    near = np.take_along_axis(far, found, axis=1)
    order = np.argsort(near, axis=1, kind="stable")
    stop = start + len(chunk)
    indices[start:stop] = np.take_along_axis(found, order, axis=1)
    values[start:stop] = np.take_along_axis(near, order, axis=1)
  if metric == "cosine":
    return indices, -values
  return indices, np.sqrt(np.maximum(values, 0))


def knn(
  train_x: np.ndarray,
  train_y: np.ndarray,
  test_x: np.ndarray,
  *,
  k: int = 20,
  metric: Literal["cosine", "euclidean"] = "cosine",
  weights: Literal["uniform", "softmax", "inverse"] = "uniform",
  temperature: float = 0.07,
  centre: bool = True,
) -> np.ndarray:
  """Lets the nearest training samples vote.

  Args:
    train_x: `[N, D]`.
    train_y: labels `[N]` in `0 .. C - 1`.
    test_x: `[M, D]`.
    k: how many vote; all `N` if there are fewer.
    metric: as in `neighbours`, and so is `centre`.
    weights: one voice each; `exp(cosine / temperature)`, or of the negative
      distance; or one over the distance (for cosine the distance of the unit
      vectors).
    temperature: of `softmax`.
    centre: as in `neighbours`.

  Returns:
    The votes `[M, C]`, summing to 1 in each row.

  Raises:
    ValueError: for other `weights` or a `metric` that does not exist.
  """
  k = min(k, len(train_x))
  found, near = neighbours(test_x, train_x, k, metric=metric, centre=centre)
  cosine = metric == "cosine"
  if weights == "uniform":
    voice = np.ones_like(near)
  elif weights == "softmax":
    like = (near if cosine else -near) / temperature
    voice = np.exp(like - like.max(axis=1, keepdims=True))
  elif weights == "inverse":
    far = np.sqrt(np.maximum(2 - 2 * near, 0)) if cosine else near
    voice = 1 / np.maximum(far, 1e-6)
  else:
    raise ValueError(
      f"weights must be uniform, softmax or inverse, got {weights!r}"
    )
  votes = np.zeros((len(test_x), int(train_y.max()) + 1))
  np.add.at(votes, (np.arange(len(votes))[:, None], train_y[found]), voice)
  return votes / votes.sum(axis=1, keepdims=True)


def _unit(x: np.ndarray) -> np.ndarray:
  length = np.linalg.norm(x, axis=1, keepdims=True)
  return x / np.maximum(length, np.finfo(np.float32).tiny)
