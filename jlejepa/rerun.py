"""Makes the update again that ended a run by gradients that were not finite.

    python -m jlejepa.rerun --workdir=runs/cifar10

The run has kept its inputs. Under `jax_debug_nans` JAX stops at the first
operation that gives nan, and its traceback leads to it.
"""

from collections.abc import Callable, Sequence

import jax
import numpy as np

from jlejepa.check import check_config
from jlejepa.data import Dataset
from jlejepa.encoders import Encoder
from jlejepa.learner import make_train_step
from jlejepa.runtime.again import describe_update, make_again
from jlejepa.runtime.errors import exit_on_user_error
from jlejepa.runtime.flags import parse_options
from jlejepa.runtime.nonfinite import load_bad_update
from jlejepa.runtime.run_folder import read_config, resolve
from jlejepa.setup import build, first_state
from jlejepa.train import load_splits


def rerun(
  workdir: str,
  *,
  dataset: Dataset | None = None,
  encoder: Encoder | None = None,
  views: Callable | None = None,
) -> dict[str, float]:
  """Makes a run's bad update again.

  Args:
    workdir: the run folder.
    dataset: as for `jlejepa.fit`, for a run on examples of your own.
    encoder: likewise.
    views: likewise.

  Returns:
    The metrics of the update, where it is finite after all.

  Raises:
    FloatingPointError: at the operation that gives nan.
    UserError: there is no bad update in the folder, or it does not fit the
      configuration or the data.
  """
  path = resolve(workdir)
  config = read_config(path)
  check_config(config)
  if dataset is None:
    dataset, _ = load_splits(config)
  parts = build(config, dataset, encoder=encoder, views=views)
  batch, images = config.train.batch, dataset.images
  template = {
    "state": jax.eval_shape(lambda: first_state(config, parts, dataset)),
    "images": np.zeros((batch, *images.shape[1:]), images.dtype),
    "labels": None if dataset.labels is None else np.zeros(batch, np.int32),
    "key": jax.eval_shape(lambda: jax.random.key(0)),
  }
  step = make_train_step(
    parts.model, parts.optimizer, parts.make_views, parts.options
  )
  return make_again(step, load_bad_update(path, template))


@exit_on_user_error()
def run(argv: Sequence[str] | None = None) -> None:
  """Runs the command `python -m jlejepa.rerun`."""
  options = parse_options(
    argv, options={"workdir": str}, prog="python -m jlejepa.rerun"
  )
  print(describe_update(rerun(options.workdir)))


if __name__ == "__main__":
  run()
