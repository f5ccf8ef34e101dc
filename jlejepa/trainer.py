"""The phases of training and their order; the state of a run on the host."""

import math
import sys
import time
from typing import Any

import jax
import numpy as np

from jlejepa import summary
from jlejepa.collapse import CollapseWatch
from jlejepa.data import describe, iterate
from jlejepa.features import extract_all, make_extract
from jlejepa.learner import TrainState, make_train_step
from jlejepa.probes import quick_probe
from jlejepa.runtime.checkpoint import Checkpoints
from jlejepa.runtime.drawing import draw
from jlejepa.runtime.errors import require
from jlejepa.runtime.files import atomic_write_json
from jlejepa.runtime.mesh import data_mesh, replicate, shard_batch
from jlejepa.runtime.metrics import MetricsWriter, read_metrics
from jlejepa.runtime.nonfinite import (
  MAX_SKIPPED,
  check_skipped,
  describe_skipped,
  save_bad_update,
)
from jlejepa.runtime.progress import Progress
from jlejepa.runtime.stop import StopSignal
from jlejepa.setup import first_state


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
