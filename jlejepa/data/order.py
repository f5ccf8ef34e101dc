"""The order of the examples, a function of seed and step alone."""

import functools

import numpy as np

from jlejepa.runtime.errors import nonnegative_int, positive_int, require


def batch_indices(
  num_examples: int, batch_size: int, seed: int, step: int
) -> np.ndarray:
  """Returns which examples make up the batch of one step.

  Each epoch is a fresh permutation, and a batch lies within one epoch: the
  `num_examples % batch_size` last examples of a permutation are left out of
  that epoch. Nothing else is remembered, so a resumed run goes on exactly.

  Args:
    num_examples: `N`.
    batch_size: `B`, from 2 to `N`.
    seed: at least 0.
    step: updates made before, at least 0.

  Returns:
    Distinct integers `[B]` in `0 .. N - 1`, read-only.

  Raises:
    UserError: for numbers out of range.
  """
  check_batch(num_examples, batch_size, seed, step)
  epoch, place = divmod(step, num_examples // batch_size)
  start = place * batch_size
  return _permutation(num_examples, seed, epoch)[start : start + batch_size]


def check_batch(
  num_examples: int, batch_size: int, seed: int, step: int
) -> None:
  """Checks the arguments of `batch_indices`.

  Raises:
    UserError: naming the first that is out of range.
  """
  positive_int("batch_size", batch_size)
  nonnegative_int("seed", seed)
  nonnegative_int("step", step)
  require(
    batch_size > 1, "batch_size=1: SIGReg compares images, give at least 2"
  )
  require(
    batch_size <= num_examples,
    f"batch_size={batch_size} is more than the {num_examples} examples: lower"
    " it",
  )


# Grain's index shuffle needs no memory, but its permutations are not uniform:
# 20,000 of five elements fail a chi-squared test of neighbours at 1e-8.
@functools.lru_cache(maxsize=4)
def _permutation(num_examples: int, seed: int, epoch: int) -> np.ndarray:
  order = np.random.default_rng([seed, epoch]).permutation(num_examples)
  order.setflags(write=False)
  return order
