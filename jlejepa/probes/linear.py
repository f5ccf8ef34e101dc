"""Linear probes of frozen features: ridge and logistic regression."""

from collections.abc import Sequence

import numpy as np
import scipy.linalg
import scipy.optimize
import scipy.special

from jlejepa.probes.checks import accuracy, hold_out

RIDGE_GRID = (10.0, 1.0, 1e-1, 1e-2, 1e-3, 1e-4, 1e-5)
LOGISTIC_GRID = (1.0, 1e-1, 1e-2, 1e-3, 1e-4)
HELD_OUT = 0.2


def ridge(
  train_x: np.ndarray,
  train_y: np.ndarray,
  test_x: np.ndarray,
  *,
  wd: float | Sequence[float] = RIDGE_GRID,
  scale: np.ndarray | None = None,
) -> np.ndarray:
  """Fits one-hot targets by ridge regression with an intercept, in closed form.

  Features are centred and scaled to unit variance first. With several `wd` the
  one with the best accuracy on the last fifth of each class, fitted to the
  rest, is fitted again to everything; the larger one of a tie.

  Args:
    train_x: `[N, D]`.
    train_y: labels `[N]` in `0 .. C - 1`.
    test_x: `[M, D]`.
    wd: of the mean squared error, so of `wd * N` in the sum; above 0.
    scale: `[D]`, divides the features; their standard deviation if None.

  Returns:
    Scores `[M, C]`, float64; the highest is the class.
  """
  targets = one_hot(train_y)
  scale = spread(train_x) if scale is None else scale
  x = (train_x - train_x.mean(axis=0)) / scale
  x = x.astype(np.float64)
  candidates = np.atleast_1d(wd)
  held = hold_out(train_y, HELD_OUT)
  if len(candidates) > 1 and held.any():
    fits = _solve(x[~held], targets[~held], candidates)
    found = [accuracy(x[held] @ w + b, train_y[held]) for w, b in fits]
    candidates = candidates[[np.argmax(found)]]
  ((weights, bias),) = _solve(x, targets, candidates[:1])
  return (test_x - train_x.mean(axis=0)) / scale @ weights + bias


def logistic(
  train_x: np.ndarray,
  train_y: np.ndarray,
  test_x: np.ndarray,
  *,
  wd: float | Sequence[float] = LOGISTIC_GRID,
  iterations: int = 200,
) -> np.ndarray:
  """Fits multinomial logistic regression by L-BFGS.

  Minimises `mean cross-entropy + wd / 2 * sum of squared weights`, intercept
  free, on standardised features; scikit-learn's `C` is `1 / (wd * N)`. `wd` is
  chosen as in `ridge`, each fit starting from that of the larger `wd` before.

  Args:
    train_x: `[N, D]`.
    train_y: labels `[N]` in `0 .. C - 1`.
    test_x: `[M, D]`.
    wd: above 0; several in falling order.
    iterations: at most so many for each `wd`.

  Returns:
    Logits `[M, C]`.
  """
  mean, scale = train_x.mean(axis=0), spread(train_x)
  x = (train_x - mean) / scale
  targets = one_hot(train_y).astype(x.dtype)
  candidates = np.atleast_1d(wd)
  held = hold_out(train_y, HELD_OUT)
  start = np.zeros((x.shape[1] + 1, targets.shape[1]))
  if len(candidates) > 1 and held.any():
    found, fitted = [], start
    for value in candidates:
      fitted = _lbfgs(x[~held], targets[~held], value, fitted, iterations)
      logits = x[held] @ fitted[:-1] + fitted[-1]
      found.append(accuracy(logits, train_y[held]))
    candidates = candidates[: 1 + np.argmax(found)]
  for value in candidates[-1:]:
    start = _lbfgs(x, targets, value, start, iterations)
  return (test_x - mean) / scale @ start[:-1] + start[-1]


def one_hot(labels: np.ndarray) -> np.ndarray:
  """Returns float64 `[N, C]` for labels `[N]` in `0 .. C - 1`."""
  return np.eye(int(labels.max()) + 1)[labels]


def spread(features: np.ndarray) -> np.ndarray:
  """Returns the standard deviation of each column, 1 for a constant one.

  One that varies by rounding alone counts as constant: dividing by its spread
  would make a feature of noise.
  """
  deviation = features.std(axis=0, dtype=np.float64)
  size = np.abs(features).max(axis=0)
  constant = deviation <= 1e-6 * size
  return np.where(constant, 1, deviation).astype(features.dtype)


def _solve(
  x: np.ndarray, targets: np.ndarray, candidates: Sequence[float]
) -> list[tuple[np.ndarray, np.ndarray]]:
  """Gives weights `[D, C]` and intercept `[C]` for each weight decay."""
  mean, centre = x.mean(axis=0), targets.mean(axis=0)
  x, targets = x - mean, targets - centre
  count, width = x.shape
  # The smaller of the two systems; both give the same weights.
  dual = count < width
  gram = x @ x.T if dual else x.T @ x
  right = targets if dual else x.T @ targets
  fits = []
  for wd in candidates:
    system = gram + wd * count * np.eye(len(gram))
    solved = scipy.linalg.solve(system, right, assume_a="pos")
    weights = x.T @ solved if dual else solved
    fits.append((weights, centre - mean @ weights))
  return fits


def _lbfgs(
  x: np.ndarray,
  targets: np.ndarray,
  wd: float,
  start: np.ndarray,
  iterations: int,
) -> np.ndarray:
  """Gives weights and, as the last row, intercept `[D + 1, C]`."""

  def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
    fitted = flat.reshape(start.shape)
    weights = fitted[:-1].astype(x.dtype)
    logits = x @ weights + fitted[-1]
    log_p = logits - scipy.special.logsumexp(logits, axis=1, keepdims=True)
    value = -np.sum(targets * log_p) / len(x) + wd / 2 * np.sum(
      fitted[:-1] ** 2
    )
    error = ((np.exp(log_p) - targets) / len(x)).astype(x.dtype)
    slope = np.concatenate(
      [x.T @ error + wd * fitted[:-1], error.sum(axis=0, keepdims=True)]
    )
    return value, slope.ravel().astype(np.float64)

  result = scipy.optimize.minimize(
    loss,
    start.ravel(),
    jac=True,
    method="L-BFGS-B",
    options={"maxiter": iterations, "gtol": 1e-5},
  )
  return result.x.reshape(start.shape)
