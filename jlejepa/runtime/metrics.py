"""Record a run's numbers: JSON lines always, TensorBoard files beside them."""

import json
import math
import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jlejepa.runtime.errors import UserError
from jlejepa.runtime.files import atomic_write_text
from jlejepa.runtime.processes import is_primary

FILE = "metrics.jsonl"
# JSON has no such numbers, and `NaN` unquoted breaks every strict reader.
_SPECIAL = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


class MetricsWriter:
  """Appends rows of scalars to `metrics.jsonl` in a run's folder.

  nan and the infinities are written as the strings `"NaN"`, `"Infinity"` and
  `"-Infinity"`; `read_metrics` turns them back. A last line that a killed
  process left half written is removed on opening. Where a run has several
  processes, only the first one writes.

  Args:
    folder: the run's folder.
    tensorboard: whether to write TensorBoard files under `tensorboard/` too;
      without tensorboardX a warning says so and the rest goes on.
    step_key: the row's entry that is TensorBoard's x axis.
  """

  def __init__(
    self,
    folder: str | os.PathLike,
    tensorboard: bool = True,
    *,
    step_key: str = "step",
  ):
    self._path = Path(folder) / FILE
    self._step_key = step_key
    self._file = self._tensorboard = None
    if not is_primary():
      return
    if tensorboard:
      self._tensorboard = _TensorBoard(Path(folder) / "tensorboard")
    _drop_torn_line(self._path)
    self._file = open(self._path, "a", encoding="utf-8")  # noqa: SIM115

  def write(self, row: Mapping[str, Any]) -> None:
    """Appends one row and hands it to the system, so that kill -9 keeps it.

    Args:
      row: names to numbers, texts, bools or None; zero-dimensional NumPy and
        JAX arrays become numbers. Every row should hold the step, since
        `truncate_after` files a row without one under the row before it.

    Raises:
      ValueError: if an entry is not a scalar.
      OSError: if the disk is full.
    """
    row = {key: _scalar(key, value) for key, value in row.items()}
    if self._file is None:
      return
    line = json.dumps({key: _encode(value) for key, value in row.items()})
    self._file.write(line + "\n")
    self._file.flush()
    if self._tensorboard is not None:
      self._tensorboard.write(row, row.get(self._step_key))

  def truncate_after(self, step_key: str, value: float) -> None:
    """Removes the rows that a resumed run is about to write again.

    Args:
      step_key: the entry to compare.
      value: the restored step; rows above it go, and with them rows without
        the entry that follow them. -1 removes every row.
    """
    if self._file is None:
      return
    self._file.close()
    kept, current = [], 0
    for row in read_metrics(self._path.parent):
      step = row.get(step_key)
      # A damaged row may have anything there.
      current = step if isinstance(step, int | float) else current
      if current <= value:
        kept.append(row)
    lines = [
      json.dumps({key: _encode(item) for key, item in row.items()}) + "\n"
      for row in kept
    ]
    atomic_write_text(self._path, "".join(lines))
    self._file = open(self._path, "a", encoding="utf-8")  # noqa: SIM115
    if self._tensorboard is not None and step_key == self._step_key:
      self._tensorboard.purge_step = int(value) + 1

  def close(self) -> None:
    """Closes the files."""
    if self._file is not None:
      self._file.close()
    if self._tensorboard is not None:
      self._tensorboard.close()

  def __enter__(self) -> "MetricsWriter":
    return self

  def __exit__(self, *exception: object) -> None:
    self.close()


def read_metrics(workdir: str | os.PathLike) -> list[dict[str, Any]]:
  """Returns the rows of a run's `metrics.jsonl`, oldest first.

  A torn last line is left out in silence; another line that is no JSON object
  is left out with a warning. No file gives no rows.

  Raises:
    UserError: if the file cannot be read.
  """
  path = Path(workdir) / FILE
  try:
    lines = path.read_bytes().split(b"\n")
  except FileNotFoundError:
    return []
  except OSError as error:
    raise UserError(f"{path} cannot be read: {error.strerror}") from error
  rows = []
  # What follows the last newline is nothing, or a torn line.
  for number, line in enumerate(lines[:-1], 1):
    try:
      rows.append(
        {key: _decode(item) for key, item in json.loads(line).items()}
      )
    except (ValueError, AttributeError):
      warnings.warn(
        f"{path}: left out line {number}, not a JSON object", stacklevel=2
      )
  return rows


class _TensorBoard:
  """A TensorBoard writer that may fail without harm to the run."""

  def __init__(self, folder: Path):
    self._folder = folder
    self._writer = None
    self._broken = False
    self.purge_step = None

  def write(self, row: Mapping[str, Any], step: Any) -> None:
    if self._broken or step is None:
      return
    try:
      if self._writer is None:
        # Imported late: the run does not need it.
        from tensorboardX import SummaryWriter

        self._writer = SummaryWriter(
          str(self._folder), purge_step=self.purge_step, flush_secs=10
        )
      for key, value in row.items():
        if isinstance(value, int | float):
          self._writer.add_scalar(key, value, int(step))
    except Exception as error:
      # Whatever goes wrong here, metrics.jsonl has the row.
      self._broken = True
      warnings.warn(f"no TensorBoard files: {error}", stacklevel=3)

  def close(self) -> None:
    if self._writer is not None:
      self._writer.close()


def _drop_torn_line(path: Path) -> None:
  if not path.exists():
    return
  with open(path, "rb+") as file:
    content = file.read()
    file.truncate(content.rfind(b"\n") + 1)


def _scalar(key: str, value: Any) -> Any:
  if value is None or isinstance(value, bool | int | float | str):
    return value
  array = np.asarray(value)
  # bfloat16 and its kin are no NumPy numbers: kind "V".
  if array.ndim or array.dtype.kind not in "biufVSU":
    raise ValueError(
      f"metric {key!r} must be a scalar, got {array.dtype} of shape "
      f"{array.shape}"
    )
  return array.item()


def _encode(value: Any) -> Any:
  if isinstance(value, float) and not math.isfinite(value):
    if math.isnan(value):
      return "NaN"
    return "Infinity" if value > 0 else "-Infinity"
  return value


def _decode(value: Any) -> Any:
  return _SPECIAL.get(value, value) if isinstance(value, str) else value
