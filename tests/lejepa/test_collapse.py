"""The words about a collapse: which, when, and once."""

import jax
import jax.numpy as jnp
import pytest

import jlejepa
from jlejepa.collapse import CollapseWatch, describe_collapse

HEALTHY = {"spread": 0.9, "effective_rank": 12.0}
POINT = {"spread": 0.02, "effective_rank": 5.0}
LINE = {"spread": 0.9, "effective_rank": 1.2}


@pytest.mark.parametrize(
  "row, words",
  [
    (HEALTHY, ""),
    (POINT, "almost the same (spread 0.02; a Gaussian's is 1)"),
    (LINE, "the embeddings lie on a line (effective rank 1.2)"),
    # A point is no line either: what is worse is said.
    ({"spread": 0.0, "effective_rank": 0.0}, "almost the same (spread 0;"),
  ],
)
def test_each_kind_has_its_words(row, words):
  text = describe_collapse(row)
  assert words in text and bool(text) == bool(words)


def test_the_metrics_of_the_loss_tell_them_apart():
  z = jax.random.normal(jax.random.key(0), (2, 64, 8))
  line = z[..., :1] * jnp.ones(8)
  for embeddings, words in (
    (z, ""),
    (1e-3 * z, "almost the same"),
    (line, "lie on a line"),
  ):
    metrics = jlejepa.lejepa_loss(
      embeddings, jax.random.key(1), num_global=1, num_slices=4
    )[1]
    text = describe_collapse({k: float(v) for k, v in metrics.items()})
    assert words in text and bool(text) == bool(words)


def test_a_collapse_is_said_once_and_so_is_its_end():
  said = []
  watch = CollapseWatch(0.001, said.append)
  for step, row in enumerate([HEALTHY, LINE, LINE, POINT, HEALTHY, HEALTHY]):
    watch.look(row, step)
  assert said == [
    "collapse at step 1: the embeddings lie on a line (effective rank 1.2). The"
    " prediction loss alone is smallest there: give SIGReg more weight,"
    " config.loss.lam = 0.001 now, 0.01 to 0.2 as a rule",
    "step 4: the embeddings have spread out again",
  ]
  assert not watch.collapsed
  watch.look(POINT, 6)
  assert watch.collapsed and said[2].startswith("collapse at step 6")
