"""What several processes of one run must do together, or one of them alone.

Every process runs the same program, as `jax.distributed` has it. In a run of
one process all of this does nothing.
"""

from collections.abc import Callable
from typing import TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils

from jlejepa.runtime.errors import UserError

T = TypeVar("T")
_LONGEST = 2000  # Bytes of an error that is told to the other processes.


def is_primary() -> bool:
  """Says whether this process writes the run's files."""
  return jax.process_index() == 0


def largest(number: int) -> int:
  """Returns the largest of all processes' numbers; they all must call."""
  if jax.process_count() == 1:
    return number
  return int(multihost_utils.process_allgather(np.int32(number)).max())


def primary_alone(work: Callable[[], T]) -> T | None:
  """Does something in the first process while the others wait.

  A process that died is found out by its missing heartbeats, and JAX then ends
  the others: `jax.distributed.initialize(heartbeat_timeout_seconds=...)`.

  Returns:
    In the first process what `work` returns, elsewhere None.

  Raises:
    UserError: in every process, if `work` raises one in the first.
  """
  if jax.process_count() == 1:
    return work()
  result, failure = None, None
  if is_primary():
    try:
      result = work()
    except Exception as error:
      failure = error
  text = np.zeros(_LONGEST, np.uint8)
  if failure is not None:
    told = str(failure).encode()[:_LONGEST] or b"failed"
    text[: len(told)] = list(told)
  text = multihost_utils.broadcast_one_to_all(text)
  if failure is not None:
    raise failure
  if text.any():
    raise UserError(bytes(text).rstrip(b"\0").decode(errors="replace"))
  return result
