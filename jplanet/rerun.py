"""Makes the update again that ended a run by gradients that were not finite.

    python -m jplanet.rerun --workdir=runs/cheetah

The run has kept its inputs. Under `jax_debug_nans` JAX stops at the first
operation that gives nan, and its traceback leads to it.
"""

from collections.abc import Sequence

import jax
import numpy as np

from jlejepa.runtime.again import describe_update, make_again
from jlejepa.runtime.errors import exit_on_user_error
from jlejepa.runtime.flags import parse_options
from jlejepa.runtime.nonfinite import load_bad_update
from jlejepa.runtime.run_folder import read_config, resolve
from jplanet.check import check_config
from jplanet.learner import make_train_step
from jplanet.setup import build
from jplanet.setup_envs import EnvFactory, EnvMaker
from jplanet.types import Batch


def rerun(workdir: str, *, env: EnvMaker | None = None) -> dict[str, float]:
  """Makes a run's bad update again.

  Args:
    workdir: the run folder.
    env: as for `jplanet.fit`, for a run on an environment of your own.

  Returns:
    The metrics of the update, where it is finite after all.

  Raises:
    FloatingPointError: at the operation that gives nan.
    UserError: there is no bad update in the folder.
  """
  path = resolve(workdir)
  config = read_config(path)
  check_config(config)
  dim = EnvFactory(config, env).action_dim
  parts = build(config, dim)
  template = jax.eval_shape(
    lambda: {
      "state": parts.init(jax.random.key(0)),
      "key": jax.random.key(0),
    }
  )
  sizes, size = (config.train.batch, config.train.chunk), config.env.size
  template["batch"] = Batch(
    image=np.zeros((*sizes, size, size, 3), np.uint8),
    action=np.zeros((*sizes, dim), np.float32),
    reward=np.zeros(sizes, np.float32),
  )
  step = make_train_step(parts.model, parts.optimizer, ema=config.optimizer.ema)
  return make_again(step, load_bad_update(path, template))


@exit_on_user_error()
def run(argv: Sequence[str] | None = None) -> None:
  """Runs the command `python -m jplanet.rerun`."""
  options = parse_options(
    argv, options={"workdir": str}, prog="python -m jplanet.rerun"
  )
  print(describe_update(rerun(options.workdir)))


if __name__ == "__main__":
  run()
