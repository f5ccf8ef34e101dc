"""Bad gradients: skipped and counted in the step, ended by the loop.

`optax.apply_if_finite` applies the bad update after its limit; here nothing
that is not finite ever reaches the parameters.
"""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from jlejepa.runtime.checkpoint import Checkpoints
from jlejepa.runtime.errors import UserError

MAX_SKIPPED = 10


class NonFiniteError(UserError, FloatingPointError):
  """Gradients stayed non-finite; the parameters are still those before."""


def keep_finite(finite: jax.Array, new: Any, old: Any) -> Any:
  """Returns the tree `new` where `finite` holds, and `old` elsewhere."""
  return jax.tree.map(lambda n, o: jnp.where(finite, n, o), new, old)


def describe_skipped(total: int, before: int, step: int) -> str:
  """Returns a line for a person about updates skipped since `before`.

  Args:
    total: updates skipped in the whole run.
    before: how many of them the last line has told of.
    step: updates made, skipped ones included.
  """
  return (
    f"skipped {total - before} of the updates up to {step}: their gradients"
    f" were not finite ({total} since the run began)"
  )


def check_skipped(skipped: int, step: int, hint: str) -> None:
  """Ends a run whose gradients have stayed non-finite.

  Args:
    skipped: updates in a row that were skipped, the last one included.
    step: updates made, skipped ones included.
    hint: what the user should look at.

  Raises:
    NonFiniteError: after `MAX_SKIPPED` of them in a row.
  """
  if skipped >= MAX_SKIPPED:
    raise NonFiniteError(
      f"the last {skipped} gradients up to update {step} were not finite; the"
      f" parameters are those before them: lower"
      f" config.optimizer.learning_rate, or look at {hint}"
    )


def save_bad_update(workdir: Path, step: int, inputs: Any) -> Path:
  """Keeps what an update was made from, to make it again in a debugger.

  Args:
    workdir: the run folder; the inputs go to its `debug/<step>`.
    step: the update's number.
    inputs: all arguments of the step, in any pytree.

  Returns:
    The folder, to be read with `load_bad_update`.
  """
  checkpoints = Checkpoints(workdir / "debug", keep=1)
  checkpoints.save(step, inputs)
  return checkpoints.directory / f"{step}"


def load_bad_update(workdir: Path, template: Any) -> Any:
  """Returns what `save_bad_update` has kept, like the template.

  Raises:
    UserError: if there is nothing, or it differs from the template.
  """
  restored = Checkpoints(workdir / "debug").restore(template)
  if restored is None:
    raise UserError(f"{workdir} holds no bad update: no run has ended by one")
  return restored[1]
