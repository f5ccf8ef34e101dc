"""Probes against scikit-learn, by hand, and on data with a known answer."""

import numpy as np
import pytest
from scipy import stats
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.neighbors import KNeighborsClassifier

from jlejepa.probes import (
  accuracy,
  check_labelled,
  draw_shots,
  knn,
  logistic,
  mlp_probe,
  neighbours,
  rank_me,
  ridge,
)
from jlejepa.probes.checks import hold_out
from jlejepa.probes.linear import one_hot, spread


def _blobs(seed=0, *, count=300, width=12, classes=4, noise=2.0):
  """Overlapping clusters with unequal scales and a large mean."""
  rng = np.random.default_rng(seed)
  centres = rng.normal(size=(classes, width))
  labels = rng.integers(classes, size=count)
  labels[:classes] = np.arange(classes)
  x = centres[labels] + noise * rng.normal(size=(count, width))
  x = x * np.geomspace(0.1, 100, width) + 5
  cut = count * 2 // 3
  x = x.astype(np.float32)
  return x[:cut], labels[:cut], x[cut:], labels[cut:]


def _standardised(train_x, test_x):
  mean, std = train_x.mean(axis=0), train_x.std(axis=0)
  return (train_x - mean) / std, (test_x - mean) / std


@pytest.mark.parametrize("width", [12, 250])
def test_ridge_is_scikit_learns_on_standardised_features(width):
  # 250 columns are more than the 200 samples: the other system is solved.
  train_x, train_y, test_x, _ = _blobs(width=width)
  a, b = _standardised(train_x, test_x)
  wanted = Ridge(alpha=0.3 * len(a)).fit(a, one_hot(train_y)).predict(b)
  found = ridge(train_x, train_y, test_x, wd=0.3)
  np.testing.assert_allclose(found, wanted, atol=1e-4)


def test_ridge_chooses_the_decay_on_the_last_fifth_of_each_class():
  train_x, train_y, test_x, _ = _blobs(width=120, noise=4)
  held = hold_out(train_y, 0.2)
  # Standardised before the split, as the final fit will be.
  x, _ = _standardised(train_x, test_x)
  grid = (10.0, 1.0, 0.1, 0.001)
  scores = []
  for wd in grid:
    fit = Ridge(alpha=wd * (~held).sum()).fit(x[~held], one_hot(train_y)[~held])
    scores.append(np.mean(fit.predict(x[held]).argmax(1) == train_y[held]))
  assert len(set(scores)) > 1
  best = grid[int(np.argmax(scores))]
  np.testing.assert_allclose(
    ridge(train_x, train_y, test_x, wd=grid),
    ridge(train_x, train_y, test_x, wd=best),
  )


def test_the_held_out_part_has_a_fifth_of_every_class_even_if_sorted():
  labels = np.repeat([0, 1, 2], [10, 5, 4])
  held = hold_out(labels, 0.2)
  assert np.flatnonzero(held).tolist() == [8, 9, 14]


def test_logistic_is_scikit_learns():
  train_x, train_y, test_x, _ = _blobs()
  a, b = _standardised(train_x, test_x)
  wanted = LogisticRegression(C=1 / (0.01 * len(a)), tol=1e-8, max_iter=1000)
  found = logistic(train_x, train_y, test_x, wd=0.01, iterations=1000)
  found = np.exp(found - found.max(axis=1, keepdims=True))
  found /= found.sum(axis=1, keepdims=True)
  np.testing.assert_allclose(
    found, wanted.fit(a, train_y).predict_proba(b), atol=2e-3
  )


def test_logistic_chooses_a_decay_that_fits():
  train_x, train_y, test_x, test_y = _blobs(count=150, width=60, noise=2.5)
  chosen = accuracy(logistic(train_x, train_y, test_x), test_y)
  loose = accuracy(logistic(train_x, train_y, test_x, wd=1e-6), test_y)
  assert chosen >= loose


def test_a_constant_feature_is_not_blown_up():
  x = np.ones((50, 2), np.float32) * 1000
  x[0, 0] += 1e-4  # rounding
  x[:, 1] = np.arange(50)
  scale = spread(x)
  assert scale[0] == 1
  np.testing.assert_allclose(scale[1], np.arange(50).std(), rtol=1e-6)


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
@pytest.mark.parametrize("weights", ["uniform", "inverse"])
def test_knn_is_scikit_learns(metric, weights):
  train_x, train_y, test_x, _ = _blobs(noise=1)
  a, b = _standardised(train_x, test_x)
  if metric == "cosine":
    # On the sphere the order of distances is that of cosines.
    unit = lambda x: x / np.linalg.norm(x, axis=1, keepdims=True)
    a, b = unit(a), unit(b)
  theirs = {"uniform": "uniform", "inverse": "distance"}[weights]
  model = KNeighborsClassifier(7, weights=theirs).fit(a, train_y)
  found = knn(a, train_y, b, k=7, metric=metric, weights=weights, centre=False)
  np.testing.assert_allclose(found, model.predict_proba(b), atol=1e-4)


def test_softmax_votes_by_hand():
  # Cosines 1, 0.6 and 0 with the query, in classes 1, 0 and 0.
  bank = np.array([[1, 0], [0.6, 0.8], [0, 1]], np.float32)
  query = np.array([[2, 0]], np.float32)
  votes = knn(
    bank,
    np.array([1, 0, 0]),
    query,
    k=3,
    weights="softmax",
    temperature=0.5,
    centre=False,
  )
  e = np.exp([2, 1.2, 0])
  np.testing.assert_allclose(
    votes, [[(e[1] + e[2]) / e.sum(), e[0] / e.sum()]], rtol=1e-6
  )


def test_centring_takes_the_mean_of_the_bank_from_both():
  rng = np.random.default_rng(0)
  bank = rng.normal(size=(60, 5)).astype(np.float32)
  queries = rng.normal(size=(20, 5)).astype(np.float32)
  wanted, _ = neighbours(
    queries - bank.mean(0), bank - bank.mean(0), 5, centre=False
  )
  found, _ = neighbours(queries + 100, bank + 100, 5)
  np.testing.assert_array_equal(found, wanted)


def test_neighbours_in_chunks_are_the_neighbours(monkeypatch):
  rng = np.random.default_rng(0)
  bank, queries = rng.normal(size=(2, 40, 6)).astype(np.float32)
  far = np.linalg.norm(queries[:, None] - bank, axis=-1)
  monkeypatch.setattr("jlejepa.probes.nearest.CHUNK", 7)
  index, distance = neighbours(queries, bank, 9, metric="euclidean")
  np.testing.assert_array_equal(index, np.argsort(far, axis=1)[:, :9])
  np.testing.assert_allclose(distance, np.sort(far, axis=1)[:, :9], rtol=1e-4)


def test_bad_arguments_of_neighbours_are_refused():
  x, y = np.eye(4, dtype=np.float32), np.arange(4)
  with pytest.raises(ValueError, match="metric must be cosine or euclidean"):
    neighbours(x, x, 1, metric="manhattan")
  with pytest.raises(ValueError, match="k must be from 1 to the 4 samples"):
    neighbours(x, x, 5)
  with pytest.raises(ValueError, match="weights must be uniform, softmax"):
    knn(x, y, x, weights="linear")


def test_the_mlp_solves_what_no_linear_probe_can():
  # The sign of a product: linear regression sees nothing of it.
  rng = np.random.default_rng(0)
  x = rng.normal(size=(900, 2)).astype(np.float32)
  y = (x[:, 0] * x[:, 1] > 0).astype(int)
  a, b, ya, yb = x[:600], x[600:], y[:600], y[600:]
  fitted = mlp_probe(a, ya, b, hidden=64, batch=64, learning_rate=0.01)
  again = mlp_probe(a, ya, b, hidden=64, batch=64, learning_rate=0.01)
  np.testing.assert_array_equal(fitted, again)
  assert accuracy(fitted, yb) > 0.93
  assert accuracy(ridge(a, ya, b), yb) < 0.65


def test_the_mlp_stops_early_and_keeps_the_best_epoch():
  # Noise: every epoch is worse on what is held out, so the first ones win and
  # sixty epochs change nothing.
  rng = np.random.default_rng(1)
  x, y = (
    rng.normal(size=(120, 20)).astype(np.float32),
    rng.integers(2, size=120),
  )
  short, long = (
    mlp_probe(x, y, x, patience=2, epochs=n, learning_rate=0.1) for n in (8, 40)
  )
  np.testing.assert_array_equal(short, long)


@pytest.mark.parametrize("probe", [ridge, logistic, knn, mlp_probe])
def test_pure_noise_stays_at_chance_and_a_copy_of_the_label_does_not(probe):
  rng = np.random.default_rng(0)
  y = rng.integers(5, size=600)
  y[:5] = np.arange(5)
  noise = rng.normal(size=(600, 8)).astype(np.float32)
  told = np.concatenate([noise, 8 * one_hot(y)], axis=1).astype(np.float32)
  score = lambda x: accuracy(probe(x[:400], y[:400], x[400:]), y[400:])
  # Three standard errors of 200 answers around one in five.
  assert abs(score(noise) - 0.2) < 0.085
  assert score(told) > 0.95


@pytest.mark.parametrize("probe", [ridge, logistic, knn])
def test_probes_do_not_see_the_order_of_features_and_classes(probe):
  train_x, train_y, test_x, _ = _blobs()
  rng = np.random.default_rng(0)
  order, names = rng.permutation(train_x.shape[1]), rng.permutation(4)
  scores = probe(train_x, train_y, test_x)
  moved = probe(train_x[:, order], names[train_y], test_x[:, order])
  np.testing.assert_allclose(moved[:, names], scores, atol=3e-3)


def test_draws_are_balanced_seeded_and_nested():
  labels = np.random.default_rng(0).integers(4, size=200)
  five, two = draw_shots(labels, 5), draw_shots(labels, 2)
  assert len(five) == 3
  for draw, smaller in zip(five, two):
    assert np.bincount(labels[draw]).tolist() == [5, 5, 5, 5]
    assert set(smaller) < set(draw)
  assert len({tuple(draw) for draw in five}) == 3
  np.testing.assert_array_equal(five, draw_shots(labels, 5))
  assert (five[0] != draw_shots(labels, 5, seed=1)[0]).any()


def test_a_class_with_fewer_samples_gives_them_all():
  labels = np.array([0] * 10 + [1] * 2)
  (draw,) = draw_shots(labels, 5, draws=1)
  assert np.bincount(labels[draw]).tolist() == [5, 2]


def test_rank_me_by_hand():
  basis, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(30, 3)))
  turn, _ = np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))
  features = basis * [3.0, 2.0, 1.0] @ turn
  wanted = np.exp(stats.entropy([3, 2, 1]))
  assert rank_me(features) == pytest.approx(wanted)
  assert rank_me(features.T) == pytest.approx(wanted)
  assert rank_me(np.eye(7)) == pytest.approx(7)
  assert rank_me(np.outer(np.arange(9), [1.0, 2.0])) == pytest.approx(1)
  assert rank_me(np.zeros((5, 3))) == 0


def _bad(message, **changes):
  x, y = np.eye(6, dtype=np.float32), np.arange(6) % 3
  given = dict(train_x=x, train_y=y, test_x=x, test_y=y) | changes
  return pytest.param(given, message, id=message[:30])


@pytest.mark.parametrize(
  "given, message",
  [
    _bad("6 training features need 6 labels", train_y=np.arange(5)),
    _bad("6 test features need 6 labels", test_y=np.zeros((6, 1), int)),
    _bad("training labels must be integers, got float", train_y=np.ones(6)),
    _bad("test labels must be 0 or more, got -1", test_y=np.arange(6) - 1),
    _bad("class 1 of 0 .. 2 has no training", train_y=np.arange(6) // 3 * 2),
    _bad("class 3 of 0 .. 3 has no training", test_y=np.full(6, 3)),
    _bad("too few for 100 classes", test_y=np.full(6, 99)),
    _bad("all labels are 0", train_y=np.zeros(6, int), test_y=np.zeros(6, int)),
    _bad("training features must have shape", train_x=np.ones(6)),
    _bad("test features must have shape", test_x=np.ones((0, 6))),
    _bad("columns, test features 5", test_x=np.eye(6)[:, :5]),
    _bad(
      "2 of 6 samples hold a nan or an infinity, the first is sample 4",
      train_x=np.where(np.arange(6)[:, None] > 3, np.nan, np.eye(6)),
    ),
    _bad("test features: 6 of 6", test_x=np.full((6, 6), np.inf)),
  ],
)
def test_bad_input_is_one_line(given, message):
  with pytest.raises(ValueError, match=message.replace("..", r"\.\.")) as error:
    check_labelled(**given)
  assert "\n" not in str(error.value)
