"""SIGReg as a metric of evaluation."""

import jax
import numpy as np
import pytest

import jlejepa
from jlejepa.gaussianity import batch_sigreg, describe_sigreg


def test_is_the_mean_over_batches_of_the_given_size():
  z = np.random.default_rng(0).standard_t(4, size=(70, 3)).astype("float32")
  found = batch_sigreg(z, 32, num_slices=64)
  order = np.random.default_rng(0).permutation(70)
  parts = [z[order[:32]], z[order[32:64]]]
  exact = np.mean([float(jlejepa.sigreg_exact(part)) for part in parts])
  assert found["exact"] == pytest.approx(exact, rel=1e-5)
  key = jax.random.key(0)
  unbiased = [jlejepa.sigreg_unbiased(x, key, num_slices=64) for x in parts]
  assert found["unbiased"] == pytest.approx(float(np.mean(unbiased)), rel=1e-4)
  assert found["batch"] == 32 and batch_sigreg(z, 99)["batch"] == 70


def test_a_gaussian_gives_the_null_values_and_classes_in_order_do_not_matter():
  z = np.random.default_rng(1).normal(size=(6000, 8)).astype("float32")
  null = batch_sigreg(z, 64)
  assert null["unbiased"] == pytest.approx(0, abs=0.1)
  assert null["exact"] == pytest.approx(1.0594, abs=0.1)
  ordered = z[np.argsort(z[:, 0])]
  assert batch_sigreg(ordered, 64)["exact"] == pytest.approx(1.06, abs=0.1)
  assert batch_sigreg(0.3 * z, 64)["exact"] > 10
  assert describe_sigreg(null).startswith(
    "SIGReg of the projection, batches of 64: unbiased "
  )


def test_a_single_sample_has_none():
  assert batch_sigreg(np.zeros((1, 4), "f"), 32) == {}
