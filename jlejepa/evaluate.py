"""Evaluation of a trained encoder: probes, ranks and pictures.

    python -m jlejepa.evaluate --workdir=runs/cifar10 [--train_images=50000]
        [--nofew_shot] [--kmeans]

Each probe sees the embedding, the last two layers joined and the projection,
and beside them the untrained encoder and the raw pixels. SIGReg of the
projection, unbiased and exact, says how Gaussian it is. `python -m
jlejepa.selection` compares a folder of runs.
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from jlejepa import summary
from jlejepa.check import check_config
from jlejepa.data import Dataset
from jlejepa.encoders import Encoder
from jlejepa.features import extract_all, make_extract
from jlejepa.gaussianity import batch_sigreg, describe_sigreg
from jlejepa.learner import TrainState
from jlejepa.objective import effective_rank
from jlejepa.probes import (
  PROBES,
  format_table,
  probe_table,
  rank_me,
)
from jlejepa.probes.kmeans_features import patch_features
from jlejepa.probes.table import SHOTS
from jlejepa.report import write_pictures
from jlejepa.runtime.checkpoint import Checkpoints
from jlejepa.runtime.errors import (
  UserError,
  exit_on_user_error,
  optional,
  positive_int,
  require,
)
from jlejepa.runtime.files import atomic_write_json, explain_disk_errors
from jlejepa.runtime.flags import parse_options
from jlejepa.runtime.run_folder import (
  RunFolder,
  hold_folder,
  read_config,
  resolve,
)
from jlejepa.setup import build, first_state
from jlejepa.train import load_splits

ASKED = 16


def evaluate(
  workdir: str,
  *,
  dataset: Dataset | None = None,
  test: Dataset | None = None,
  encoder: Encoder | None = None,
  views: Callable | None = None,
  clean: Callable | None = None,
  train_images: int | None = None,
  test_images: int | None = None,
  few_shot: bool = True,
  draws: int = 3,
  kmeans: bool = False,
  pictures: bool = True,
  quiet: bool = False,
) -> dict[str, Any]:
  """Probes the newest checkpoint of a run, and draws what it has learnt.

  Writes the table and SIGReg into the run's `scores.json` and the pictures into
  its `plots/`. The same call gives the same numbers.

  Args:
    workdir: the run folder; no other process may be using it.
    dataset: as in `jlejepa.fit`, for a run on data of your own, and so are
      `test`, `encoder`, `views` and `clean`.
    test: labelled examples for the probes.
    encoder: the network that the run trained.
    views: the views that it was trained on.
    clean: `example -> input of the encoder`.
    train_images: at most so many teach the probes; the run's own number if
      None.
    test_images: at most so many are asked; the run's own number if None.
    few_shot: whether to probe with 1, 2, 5 and 10 labels per class too.
    draws: of each number of labels.
    kmeans: whether to add the patch features of Coates, Lee and Ng: minutes.
    pictures: whether to draw.
    quiet: print nothing.

  Returns:
    `step`; `sigreg` of the projections, as `jlejepa.gaussianity.batch_sigreg`
    gives it; `probes`, the result of `jlejepa.probes.probe_table`, for data
    with labels and test examples; otherwise `ranks` of the embedding and the
    projection; `pictures`, paths by what they show.

  Raises:
    UserError: there is no run or no checkpoint in the folder, it is in use, the
      data cannot be probed, or an argument is out of range.
  """
  optional(positive_int)("train_images", train_images)
  optional(positive_int)("test_images", test_images)
  positive_int("draws", draws)
  path = resolve(workdir)
  config = read_config(path)
  check_config(config)
  if dataset is None:
    dataset, test = load_splits(config)
  parts = build(config, dataset, encoder=encoder, views=views, clean=clean)
  limits = (
    train_images or config.evaluate.train_images,
    test_images or config.evaluate.test_images,
  )
  images, labels = _samples(dataset, test, limits)
  with explain_disk_errors(path), hold_folder(path) as folder:
    first = first_state(config, parts, dataset)
    step, state = _restore(folder, first)
    extract = jax.jit(make_extract(parts.model, parts.clean_view))
    features = lambda state: [
      extract_all(extract, state.params, state.batch_stats, x) for x in images
    ]
    if not quiet:
      counts = " and ".join(str(len(x)) for x in images)
      print(f"step {step}: probing {counts} examples", file=sys.stderr)
    trained = features(state)
    loss = config.loss
    options = {k: loss[k] for k in ("num_slices", "t_max", "num_points")}
    sigreg = batch_sigreg(
      trained[0]["projection"], config.train.batch, **options
    )
    result = {"step": step, "sigreg": sigreg}
    if labels is None:
      result["ranks"] = _ranks(trained[0])
    else:
      sets = summary.feature_sets(
        list(zip(trained, labels)),
        list(zip(features(first), labels)),
        images,
        last_two=True,
      )
      if kmeans:
        sets["k-means patches"] = _patch_features(images)
      result["probes"] = _probes(sets, labels, few_shot, draws)
      scores = result["probes"] | {"sigreg": sigreg}
      atomic_write_json(folder.scores, scores)
    result["pictures"] = {}
    if pictures:
      result["pictures"] = write_pictures(
        folder, parts, state, trained, images, labels, dataset.class_names
      )
  if not quiet:
    print(describe(result))
  return result


def _samples(
  dataset: Dataset, test: Dataset | None, limits: tuple[int, int]
) -> tuple[list[summary.Selected], list[np.ndarray] | None]:
  """Gives the examples to learn from and to ask, and their labels.

  Without labels or test examples the last training examples are asked.
  """
  found = summary.probed_examples(dataset, test, limits)
  if found:
    return [x for x, _ in found], [y for _, y in found]
  count = min(limits[0], len(dataset.images))
  index = np.linspace(0, len(dataset.images) - 1, count).astype(int)
  asked = min(ASKED, count // 2)
  parts = index[: count - asked], index[count - asked :]
  return [summary.Selected(dataset.images, part) for part in parts], None


def _restore(folder: RunFolder, template: TrainState) -> tuple[int, TrainState]:
  restored = Checkpoints(folder.checkpoints).restore(template)
  require(
    restored is not None,
    f"{folder.path} holds no checkpoint yet: train there for longer first",
  )
  step, state, _ = restored
  return step, state


def _ranks(features: Mapping[str, np.ndarray]) -> dict[str, dict[str, float]]:
  return {
    name: {
      "rank_me": rank_me(features[name]),
      "effective_rank": float(effective_rank(features[name])),
    }
    for name in ("embedding", "projection")
  }


def _probes(
  sets: Mapping[str, Any],
  labels: Sequence[np.ndarray],
  few_shot: bool,
  draws: int,
) -> dict[str, Any]:
  try:
    return probe_table(
      sets,
      labels,
      probes=PROBES,
      shots=SHOTS if few_shot else (),
      draws=draws,
      ranks=True,
    )
  except ValueError as error:
    raise UserError(f"nothing to probe: {error}") from error


def _patch_features(images: Sequence[Any]) -> tuple[np.ndarray, np.ndarray]:
  train, test = (np.asarray(x[np.arange(len(x))]) for x in images)
  try:
    # Six pixels of 32 in the paper, and a smaller patch for smaller images.
    size = max(2, min(6, min(train.shape[1:3]) // 3))
    return patch_features(train, test, size=size)
  except ValueError as error:
    raise UserError(f"--kmeans: {error}") from error


def describe(result: Mapping[str, Any]) -> str:
  """Returns what the command prints."""
  lines = [f"after {result['step']} steps"]
  if "probes" in result:
    lines += ["", format_table(result["probes"]), ""]
  for name, ranks in result.get("ranks", {}).items():
    lines.append(
      f"{name}: RankMe {ranks['rank_me']:.1f}, effective rank"
      f" {ranks['effective_rank']:.1f} (no labelled test examples, no probes)"
    )
  if result["sigreg"]:
    lines.append(describe_sigreg(result["sigreg"]))
  lines += [f"{name}: {path}" for name, path in result["pictures"].items()]
  return "\n".join(lines)


@exit_on_user_error()
def run(argv: Sequence[str] | None = None) -> None:
  """Runs the command `python -m jlejepa.evaluate`."""
  options = parse_options(
    argv,
    options={
      "workdir": str,
      "train_images": 0,
      "test_images": 0,
      "few_shot": True,
      "draws": 3,
      "kmeans": False,
      "pictures": True,
    },
    prog="jlejepa-evaluate",
  )
  evaluate(
    options.workdir,
    train_images=options.train_images or None,
    test_images=options.test_images or None,
    few_shot=options.few_shot,
    draws=options.draws,
    kmeans=options.kmeans,
    pictures=options.pictures,
  )


if __name__ == "__main__":
  run()
