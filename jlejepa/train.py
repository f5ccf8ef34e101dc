"""The training loop of LeJEPA.

    python -m jlejepa.train --config=configs/lejepa.py:cifar10 \
        --workdir=runs/cifar10 [--config.KEY=VALUE ...]

The same command on the same folder goes on with the run. Without `--config`
it trains on scikit-learn's digits, and without `--workdir` in `runs/<source>`.
"""

import math
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from jlejepa import summary
from jlejepa.check import check_config
from jlejepa.collapse import CollapseWatch
from jlejepa.data import Dataset, describe, iterate, load_dataset
from jlejepa.encoders import Encoder
from jlejepa.features import extract_all, make_extract
from jlejepa.learner import TrainState, make_train_step
from jlejepa.probes import quick_probe
from jlejepa.report import write_views
from jlejepa.runtime.allocator import restart_with_tuned_allocator
from jlejepa.runtime.checkpoint import Checkpoints
from jlejepa.runtime.drawing import draw
from jlejepa.runtime.errors import exit_on_user_error, require
from jlejepa.runtime.files import atomic_write_json, explain_disk_errors
from jlejepa.runtime.flags import parse_flags
from jlejepa.runtime.mesh import data_mesh, replicate, shard_batch
from jlejepa.runtime.metrics import MetricsWriter, read_metrics
from jlejepa.runtime.nonfinite import (
  MAX_SKIPPED,
  check_skipped,
  describe_skipped,
  save_bad_update,
)
from jlejepa.runtime.progress import Progress
from jlejepa.runtime.run_folder import RunFolder
from jlejepa.runtime.stop import StopSignal, quit_on_interrupt
from jlejepa.setup import build, first_state


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


class Trainer:
  """The loop's state on the host."""

  def __init__(
    self, config, folder, parts, dataset, probed, quiet, callback, stack
  ):
    self.config, self.folder, self.parts = config, folder, parts
    self.dataset, self.probed = dataset, probed
    self.quiet, self.callback = quiet, callback
    # First: all that follows may take long, and a signal must not end it.
    self.stop = stack.enter_context(StopSignal(config.runtime.max_minutes))
    self.key = jax.random.key(config.seed)
    self.mesh = data_mesh(config.runtime.num_devices or None)
    require(
      config.train.batch % self.mesh.size == 0,
      f"config.train.batch={config.train.batch} must be a multiple of the"
      f" {self.mesh.size} devices",
    )
    self.step_fn = jax.jit(
      make_train_step(
        parts.model, parts.optimizer, parts.make_views, parts.options
      ),
      donate_argnums=0,
    )
    self.extract = jax.jit(make_extract(parts.model, parts.clean_view))
    self.checkpoints = stack.enter_context(Checkpoints(folder.checkpoints))
    # Metrics of the steps since the last row, part of every checkpoint: a
    # resumed run writes the rows that an uninterrupted one writes.
    self.window: list[dict[str, float]] = []
    self.step, self.cpu_minutes = 0, 0.0
    self.last_saved, self.row, self.batch = -1, {}, None
    self.skipped_total = 0
    self.watch = CollapseWatch(parts.options.lam, self.say)
    self.cpu_start = time.process_time()
    self.state = self._first_state()
    self._restore()
    self.metrics = stack.enter_context(
      MetricsWriter(folder.path, config.runtime.tensorboard)
    )
    self.metrics.truncate_after("step", self.step)
    self.progress = Progress(
      total_steps=parts.total_steps,
      total_minutes=config.runtime.max_minutes or None,
      elapsed_minutes=self.stop.minutes,
      quiet=quiet,
    )
    self.say(describe(dataset))

  def run(self) -> None:
    """Trains until the epochs or the time are used up, or a signal comes."""
    if self.step >= self.parts.total_steps or self.stop.requested:
      return
    batches = iterate(
      self.dataset,
      self.config.train.batch,
      seed=self.config.seed,
      start_step=self.step,
    )
    for step, images, labels in batches:
      self.batch = shard_batch(self.mesh, (images, labels))
      self.state, metrics = self.step_fn(self.state, *self.batch, self.key)
      self.step = step + 1
      # Waits for the step before this one: the device never idles, and the
      # host never queues work past a stop.
      if self.window:
        jax.block_until_ready(self.window[-1])
      self.window.append(metrics)
      self._after_step()
      if self.step >= self.parts.total_steps or self.stop.requested:
        break
    batches.close()

  def _after_step(self) -> None:
    self.checkpoints.check()
    runtime, every = self.config.runtime, self.config.evaluate.every
    last = self.step == self.parts.total_steps
    if self.step % runtime.log_every == 0 or last:
      self._close_window()
      if self.probed and every:
        epochs = every * self.parts.steps_per_epoch
        due = self.step // epochs > (self.step - runtime.log_every) // epochs
        if due or last:
          self.row |= self.probe()
      self._log()
    if self.step % runtime.checkpoint_every == 0:
      self.save()

  def probe(self) -> dict[str, float]:
    """Returns the quick probes of the frozen embedding on the test set."""
    start = time.monotonic()
    (train, train_y), (test, test_y) = self.features(self.state)
    found = quick_probe(train["embedding"], train_y, test["embedding"], test_y)
    found = {f"probe_{name}": value for name, value in found.items()}
    return found | {"seconds_probe": time.monotonic() - start}

  def features(self, state: TrainState) -> list[summary.Labelled]:
    """Returns features by name and labels, of training and test images."""
    return [
      (
        extract_all(self.extract, state.params, state.batch_stats, images),
        labels,
      )
      for images, labels in self.probed
    ]

  def save(self) -> None:
    """Begins a checkpoint of everything that a resume needs."""
    if self.last_saved == self.step:
      return
    self.window = [
      {name: float(value) for name, value in row.items()} for row in self.window
    ]
    extra = {
      "step": self.step,
      "minutes": self.stop.minutes,
      "cpu_minutes": self._cpu_minutes(),
      "window": self.window,
      "row": self.row,
      "collapsed": self.watch.collapsed,
    }
    self.checkpoints.save_beside(self.step, self.state, extra)
    self.last_saved = self.step

  def finish(self) -> dict[str, Any]:
    """Saves, then fits the probes and draws the pictures of a finished run."""
    self.save()
    self.checkpoints.wait()
    self.progress.close()
    result = self.row | {
      "step": self.step,
      "minutes": self.stop.minutes,
      "exit_code": self.stop.exit_code,
    }
    if self.stop.exit_code:
      self.say(f"stopped by {self.stop.reason}; the same command goes on")
      return result
    if self.probed:
      result["probes"] = summary.final_probes(
        self.features(self.state),
        self.features(self._first_state()),
        [images for images, _ in self.probed],
      )
      atomic_write_json(self.folder.scores, result["probes"])
    result["pictures"] = self._pictures()
    result["exit_code"] = self.stop.exit_code
    return result

  def say(self, text: str) -> None:
    """Tells a person on stderr, unless the run is quiet."""
    if not self.quiet:
      print(text, file=sys.stderr)

  def _pictures(self) -> dict[str, str]:
    # Imported late: a run without the `video` extra trains all the same.
    from jlejepa import pictures

    rows = read_metrics(self.folder.path)
    if not rows:  # the time was up before the first of them
      return {}
    return draw(
      "training",
      pictures.training_curves,
      self.folder.plots / "training.png",
      rows,
    )

  def _first_state(self):
    return replicate(
      self.mesh, first_state(self.config, self.parts, self.dataset)
    )

  def _restore(self) -> None:
    restored = self.checkpoints.restore(self.state)
    if restored is None:
      return
    _, self.state, extra = restored
    self.step = extra["step"]
    self.stop.resume(extra["minutes"])
    self.cpu_minutes, self.window = extra["cpu_minutes"], extra["window"]
    self.row, self.watch.collapsed = extra["row"], extra["collapsed"]
    # As of the last row: what has been skipped since is told with the next.
    self.skipped_total = self.row.get("skipped_total", 0)
    self.last_saved = self.step
    self.say(f"going on from step {self.step}")

  def _close_window(self) -> None:
    rows = jax.device_get(self.window)
    self.row = {
      name: _mean([float(row[name]) for row in rows]) for name in rows[0]
    }
    self.window = []
    self._check_gradients()
    self.row["skipped_total"] = self.skipped_total
    self.watch.look(self.row, self.step)

  def _check_gradients(self) -> None:
    total, skipped = int(self.state.skipped_total), int(self.state.skipped)
    if total > self.skipped_total:
      self.say(describe_skipped(total, self.skipped_total, self.step))
      self.skipped_total = total
    if skipped >= MAX_SKIPPED:
      # The step's own arguments: it derives its keys from the counter.
      images, labels = self.batch
      inputs = {
        "state": self.state.replace(step=self.state.step - 1),
        "images": images,
        "labels": labels,
        "key": self.key,
      }
      path = save_bad_update(self.folder.path, self.step - 1, inputs)
      self.say(f"update {self.step - 1} is kept in {path}: see jlejepa.rerun")
    check_skipped(skipped, self.step, "the images")

  def _log(self) -> None:
    row = {
      "step": self.step,
      "epoch": self.step / self.parts.steps_per_epoch,
      "minutes": self.stop.minutes,
      "cpu_minutes": self._cpu_minutes(),
    } | self.row
    self.metrics.write(row)
    if self.callback is not None:
      self.callback(row)
    self.row = row
    self.progress.update(self.step, summary.describe_row(row))

  def _cpu_minutes(self) -> float:
    return self.cpu_minutes + (time.process_time() - self.cpu_start) / 60


def _mean(values: list[float]) -> float:
  """Returns the mean of what is finite: skipped steps are counted elsewhere."""
  finite = [value for value in values if math.isfinite(value)]
  return float(np.mean(finite)) if finite else math.nan


@quit_on_interrupt()
@exit_on_user_error()
def run(argv: list[str] | None = None) -> None:
  """Runs the command `python -m jlejepa.train`."""
  if argv is None:
    restart_with_tuned_allocator()
  flags = parse_flags(
    argv,
    default_spec="lejepa.py:digits",
    default_workdir="",
    prog="jlejepa-train",
  )
  workdir = flags.workdir or f"runs/{Path(flags.config.data.source).stem}"
  result = fit(flags.config, workdir, force=flags.force)
  print(summary.describe_result(result))
  raise SystemExit(result["exit_code"])


if __name__ == "__main__":
  run()
