"""The training loop of LeJEPA.

    python -m jlejepa.train --config=configs/lejepa.py:cifar10 \
        --workdir=runs/cifar10 [--config.KEY=VALUE ...]

The same command on the same folder goes on with the run. Without `--config`
it trains on scikit-learn's digits, and without `--workdir` in `runs/<source>`.
"""

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from jlejepa import summary
from jlejepa.check import check_config
from jlejepa.data import Dataset, load_dataset
from jlejepa.encoders import Encoder
from jlejepa.report import write_views
from jlejepa.runtime.allocator import restart_with_tuned_allocator
from jlejepa.runtime.errors import exit_on_user_error
from jlejepa.runtime.files import explain_disk_errors
from jlejepa.runtime.flags import parse_flags
from jlejepa.runtime.run_folder import RunFolder
from jlejepa.runtime.stop import quit_on_interrupt
from jlejepa.setup import build
from jlejepa.trainer import Trainer


def fit(
  config: ConfigDict,
  workdir: str,
  *,
  dataset: Dataset | None = None,
  test: Dataset | None = None,
  encoder: Encoder | None = None,
  views: Callable | None = None,
  clean: Callable | None = None,
  force: bool = False,
  quiet: bool = False,
  callback: Callable[[dict[str, Any]], None] | None = None,
) -> dict[str, Any]:
  """Trains an encoder, or goes on with the run in `workdir`.

  Args:
    config: as `configs/lejepa.py` makes it.
    workdir: the run folder.
    dataset: examples of your own, in place of `config.data`; see
      `jlejepa.data.from_arrays`.
    test: labelled examples for the probes, to go with `dataset`.
    encoder: a network of your own; see `jlejepa.encoders.from_function`.
    views: `(key, example) -> Views`, views of your own, for examples that are
      no images.
    clean: `example -> input of the encoder` to go with `views`; the example
      itself if None.
    force: take a folder that holds a run of another configuration.
    quiet: print nothing.
    callback: called with every row of metrics.

  Returns:
    The last row of metrics; under `probes` the table of `probe_table` if there
    are labels; under `exit_code` what the command returns: 0 for a finished
    run, 75 for one that a signal stopped.

  Raises:
    UserError: for a configuration, data or a folder that cannot be used,
      before anything is compiled.
    NonFiniteError: after `nonfinite.MAX_SKIPPED` bad gradients in a row.
  """
  check_config(config)
  if dataset is None:
    dataset, test = load_splits(config)
  parts = build(config, dataset, encoder=encoder, views=views, clean=clean)
  limits = config.evaluate.train_images, config.evaluate.test_images
  probed = summary.probed_examples(dataset, test, limits)
  with explain_disk_errors(workdir), ExitStack() as stack:
    folder = stack.enter_context(RunFolder.open(workdir, config, force=force))
    trainer = Trainer(
      config, folder, parts, dataset, probed, quiet, callback, stack
    )
    if views is None and trainer.step == 0:
      for path in write_views(folder, config, parts, dataset).values():
        trainer.say(f"images and their views: {path}")
    trainer.run()
    return trainer.finish()


def load_splits(config: ConfigDict) -> tuple[Dataset, Dataset | None]:
  """Loads the training examples and, where there are labels, test examples.

  Raises:
    UserError: for data that cannot be read.
  """
  data = config.data
  load = lambda split: load_dataset(
    data.source,
    split,
    data_dir=data.data_dir,
    size=data.size,
    max_bytes=data.max_bytes,
    holdout=data.holdout,
  )
  train = load("train")
  return train, load("test") if train.labels is not None else None


def default_workdir(config: ConfigDict) -> str:
  """Names a run's folder; `fit` refuses a config without a source."""
  return f"runs/{Path(str(config.get('data', {}).get('source', ''))).stem}"


@quit_on_interrupt()
@exit_on_user_error()
def run(argv: list[str] | None = None) -> None:
  """Runs the command `python -m jlejepa.train`."""
  if argv is None:
    restart_with_tuned_allocator()
  flags = parse_flags(
    argv,
    default_spec="lejepa.py:digits",
    default_workdir=default_workdir,
    prog="jlejepa-train",
  )
  result = fit(flags.config, flags.workdir, force=flags.force)
  print(summary.describe_result(result))
  raise SystemExit(result["exit_code"])


if __name__ == "__main__":
  run()
