"""The training loop (Algorithm 1): seed episodes, then fit and collect.

    python -m jplanet.train --config=configs/planet.py:cheetah_run \
        --workdir=runs/cheetah [--config.KEY=VALUE ...]

The same command on the same folder goes on with the run. Without `--config`
the CPU default runs, and without `--workdir` it runs in `runs/<task>`.
"""

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from ml_collections import ConfigDict

from jlejepa.runtime.allocator import (
  one_core_for_each_program,
  restart_with_tuned_allocator,
)
from jlejepa.runtime.errors import exit_on_user_error
from jlejepa.runtime.files import explain_disk_errors
from jlejepa.runtime.flags import parse_flags
from jlejepa.runtime.run_folder import RunFolder
from jlejepa.runtime.stop import quit_on_interrupt
from jplanet import report
from jplanet.check import check_config
from jplanet.setup_envs import EnvFactory, EnvMaker, keep_renderer
from jplanet.trainer import Trainer


def fit(
  config: ConfigDict,
  workdir: str,
  *,
  env: EnvMaker | None = None,
  force: bool = False,
  quiet: bool = False,
  callback: Callable[[dict[str, Any]], None] | None = None,
) -> dict[str, Any]:
  """Trains an agent, or goes on with the run in `workdir`.

  Args:
    config: as `configs/planet.py` makes it.
    workdir: the run folder.
    env: makes a `dm_env.Environment` of your own in place of `config.task`;
      called once for every environment in lockstep.
    force: take a folder that holds a run of another configuration.
    quiet: print nothing.
    callback: called with every row of metrics.

  Returns:
    The last row of metrics, and under `exit_code` what the command returns: 0
    for a finished run, 75 for one that a signal stopped.

  Raises:
    UserError: for a configuration or a folder that cannot be used, before
      anything is compiled; for a disk that is full; for `trainer.MAX_DIVERGED`
      episodes in a row that a diverging simulation cut short.
    WorkerError: if a worker process cannot be replaced any more, or an
      environment in this process does not answer for ten minutes.
    NonFiniteError: after `nonfinite.MAX_SKIPPED` bad gradients in a row.
  """
  check_config(config)
  factory = EnvFactory(keep_renderer(config, workdir), env)
  with explain_disk_errors(workdir), ExitStack() as stack:
    folder = stack.enter_context(
      RunFolder.open(
        workdir, config, force=force, extra={"renderer": factory.renderer}
      )
    )
    trainer = Trainer(config, folder, factory, quiet, callback, stack)
    trainer.run()
    return trainer.finish()


def settle_process(config: ConfigDict) -> None:
  """Gives this process the threads and the heap that its run is fastest with.

  May start the program again: call it first thing in a command.
  """
  overlap = config.get("train", {}).get("overlap")  # not yet checked
  if overlap:
    one_core_for_each_program()
  restart_with_tuned_allocator(arenas=8 if overlap else 1)


def default_workdir(config: ConfigDict) -> str:
  """Names a run's folder; `fit` refuses a config without a task."""
  return f"runs/{config.get('task', '')}".replace(",", "+")


@quit_on_interrupt()
@exit_on_user_error()
def run(argv: list[str] | None = None) -> None:
  """Runs the command `python -m jplanet.train`."""
  flags = parse_flags(
    argv,
    default_spec="planet.py:cpu",
    default_workdir=default_workdir,
    prog="jplanet-train",
  )
  if argv is None:
    settle_process(flags.config)
  result = fit(flags.config, flags.workdir, force=flags.force)
  print(report.summary(result))
  raise SystemExit(result["exit_code"])


if __name__ == "__main__":
  run()
