"""An update that was skipped is seen in every row after it, and said."""

import os
import signal

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jlejepa
from jlejepa.data import from_arrays
from jlejepa.encoders import from_function
from jlejepa.runtime.config import load_config
from jlejepa.runtime.errors import UserError
from jlejepa.runtime.metrics import read_metrics
from jlejepa.views import Views
from jplanet import report, train
from jplanet.train import fit
from jplanet.trainer import Trainer


class BadAt4(Trainer):
  """The batch of update 4, of three times 3, has a reward that is nan."""

  def step_inputs(self, update):
    inputs = super().step_inputs(update)
    if update == 4:
      inputs["batch"].reward[:] = np.nan
    return inputs


@pytest.mark.slow
def test_planet_counts_a_skipped_update_over_a_resume(
  tiny_config, dial, tmp_path, monkeypatch, capsys
):
  monkeypatch.setattr(train, "Trainer", BadAt4)
  monkeypatch.setattr(report, "write_pictures", lambda *args: {})
  stop = lambda row: (
    row["episodes"] == 4 and os.kill(os.getpid(), signal.SIGTERM)
  )
  result = fit(tiny_config(), tmp_path, env=dial, callback=stop)
  assert result["exit_code"] == 75 and result["skipped_total"] == 1
  said = "skipped 1 of the updates up to 6: their gradients were not finite"
  assert said in capsys.readouterr().err
  result = fit(tiny_config(), tmp_path, env=dial)
  # Said once, counted for ever.
  assert "skipped" not in capsys.readouterr().err
  rows = read_metrics(tmp_path)
  assert [row["updates"] for row in rows] == [0, 0, 3, 6, 9]
  assert [row["skipped_total"] for row in rows] == [0, 0, 0, 1, 1]
  # Update 5 was a good one: the row's own metrics tell nothing.
  assert np.isfinite(rows[3]["loss"])
  assert result["skipped_total"] == 1


@pytest.mark.slow
def test_lejepa_counts_skipped_updates_over_a_resume(tmp_path, capsys):
  """One example of 128 gives nan, so one of the four batches of an epoch."""
  x = np.ones((128, 5), np.float32)
  x[7] = -1

  def views(key, example):
    noise = jax.random.normal(key, (2, 5))
    return Views(noise + jnp.log(example), noise[:0])

  encoder = from_function(
    lambda key, x: {"w": jax.random.normal(key, (5, 6))},
    lambda params, x: x @ params["w"],
  )
  config = load_config(
    "lejepa.py:debug",
    [
      "projector.layers=1", "runtime.log_every=2", "train.epochs=3",
      "train.batch=32", "runtime.checkpoint_every=3",
      "optimizer.warmup_epochs=0.5",
    ],
  )  # fmt: skip
  call = lambda callback: jlejepa.fit(
    config,
    str(tmp_path),
    dataset=from_arrays(x),
    encoder=encoder,
    views=views,
    callback=callback,
  )
  stop = lambda row: row["step"] == 8 and os.kill(os.getpid(), signal.SIGTERM)
  assert call(stop)["exit_code"] == 75
  assert capsys.readouterr().err.count("skipped 1 of the updates up to") == 2
  assert call(None)["exit_code"] == 0
  assert capsys.readouterr().err.count("skipped 1 of the updates up to") == 1
  rows = read_metrics(tmp_path)
  assert [row["skipped_total"] for row in rows[1::2]] == [1, 2, 3]
  # The mean of the steps that were made, beside the one that was not.
  assert all(np.isfinite(row["loss"]) for row in rows)


def test_a_checkpoint_from_before_the_count_is_refused_by_its_name(
  tiny_config, dial, tmp_path, monkeypatch
):
  from jlejepa.runtime import checkpoint

  real = checkpoint.names_and_leaves

  def without_count(tree):
    names, leaves = real(tree)
    kept = [i for i, name in enumerate(names) if name != "skipped_total"]
    return [names[i] for i in kept], [leaves[i] for i in kept]

  config = tiny_config("train.max_episodes=3", "evaluate.every=0")
  monkeypatch.setattr(report, "write_pictures", lambda *args: {})
  with pytest.MonkeyPatch.context() as before:
    before.setattr(checkpoint, "names_and_leaves", without_count)
    fit(config, tmp_path, env=dial, quiet=True)
  with pytest.raises(UserError, match="skipped_total is not in it: run with"):
    fit(config, tmp_path, env=dial, quiet=True)
