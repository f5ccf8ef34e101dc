"""How many dimensions the embeddings use, without labels."""

import numpy as np


def rank_me(features: np.ndarray) -> float:
  """Computes RankMe: exp of the entropy of the normalised singular values.

  Garrido et al. 2023, of the features as they are, not centred: `D` if all
  singular values are equal, 1 if only one is not 0, and 0 if all are.

  Args:
    features: `[N, D]`.
  """
  x = np.asarray(features, np.float64)
  # Eigenvalues of the smaller Gram matrix are the squares.
  gram = x @ x.T if len(x) < x.shape[1] else x.T @ x
  values = np.sqrt(np.maximum(np.linalg.eigvalsh(gram), 0))
  # Squares below rounding are 0, whose root would still be seen.
  values = values[values > 1e-7 * values.max()]
  if not values.size:
    return 0.0
  p = values / values.sum()
  return float(np.exp(-np.sum(p * np.log(p))))
