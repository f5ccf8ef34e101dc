"""Open-loop prediction, with a world whose every frame is known by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jplanet.open_loop import open_loop, open_loop_figure, open_loop_video
from jplanet.types import Batch, WorldModel


def _world(noise=0.0, decode=True):
  """Makes a model of one number: its state is the grey level of the frame.

  Filtering takes the level seen, imagining adds the action (and noise).
  """
  return WorldModel(
    init=lambda key, images=None: jnp.float32(1),
    initial=lambda: {"level": jnp.float32(0)},
    encode=lambda p, image, key: image[0, 0, :1] / 256,
    observe=lambda p, s, a, e, key: {"level": e[0]},
    imagine=lambda p, s, a, key: {
      "level": s["level"] + a[0] + noise * jax.random.normal(key)
    },
    reward=lambda p, s: s["level"],
    decode=(lambda p, s: jnp.full((4, 4, 3), s["level"])) if decode else None,
    features=lambda s: s["level"][None],
    loss=lambda p, batch, key: (jnp.float32(0), {}),
  )


def _sequence(length=12, seed=0):
  rng = np.random.default_rng(seed)
  level = rng.integers(60, 200, length).astype(np.uint8)
  return Batch(
    image=jnp.broadcast_to(level[:, None, None, None], (length, 4, 4, 3)),
    action=jnp.asarray(rng.uniform(-0.02, 0.02, (length, 1)), jnp.float32),
    reward=jnp.zeros(length),
  )


def _run(sequence, *, noise=0.0, key=0, context=5):
  return open_loop(
    _world(noise), jnp.float32(1), sequence, jax.random.key(key),
    context=context,
  )  # fmt: skip


@pytest.mark.parametrize("context", [1, 5, 11])
def test_context_is_reconstructed_and_then_actions_alone_decide(context):
  sequence = _sequence()
  true, predicted = _run(sequence, context=context)
  levels = np.asarray(sequence.image[:, 0, 0, 0]) / 256
  np.testing.assert_allclose(true[:, 2, 3, 1], levels, rtol=1e-6)
  # action[t] led to frame t, so the first imagined frame adds action[context].
  dreamt = levels[context - 1] + np.cumsum(sequence.action[context:, 0])
  want = np.concatenate([levels[:context], dreamt])
  np.testing.assert_allclose(predicted[:, 0, 0, 0], want, rtol=1e-5)
  assert true.shape == predicted.shape == (12, 4, 4, 3)
  assert true.dtype == predicted.dtype == jnp.float32


def test_frames_after_the_context_are_not_looked_at():
  sequence = _sequence()
  blind = sequence._replace(image=sequence.image.at[5:].set(0))
  np.testing.assert_array_equal(_run(sequence)[1], _run(blind)[1])
  other = sequence._replace(image=sequence.image.at[4].set(0))
  assert np.abs(_run(sequence)[1] - _run(other)[1]).max() > 0.1


def test_imagined_states_are_sampled_anew_at_every_step():
  sequence = _sequence()._replace(action=jnp.zeros((12, 1)))
  first, second = (_run(sequence, noise=0.01, key=k)[1] for k in (0, 1))
  np.testing.assert_array_equal(first[:5], second[:5])
  assert np.abs(first[5:] - second[5:]).min() > 0
  steps = np.diff(np.asarray(first[4:, 0, 0, 0]))
  assert len(np.unique(np.round(steps, 6))) == 7
  again = _run(sequence, noise=0.01, key=0)[1]
  np.testing.assert_array_equal(first, again)


def test_predictions_are_clipped_to_pictures():
  sequence = _sequence()._replace(action=jnp.ones((12, 1)))
  predicted = _run(sequence)[1]
  assert predicted.max() == 1 and predicted.min() >= 0


def test_jit_and_vmap_agree_with_a_loop():
  sequences = [_sequence(seed=i) for i in range(3)]
  keys = jax.random.split(jax.random.key(0), 3)
  model = _world(0.01)
  run = lambda sequence, key: open_loop(model, jnp.float32(1), sequence, key)
  batch = jax.tree.map(lambda *x: jnp.stack(x), *sequences)
  got = jax.jit(jax.vmap(run))(batch, keys)
  for i, (sequence, key) in enumerate(zip(sequences, keys)):
    for a, b in zip(got, run(sequence, key)):
      np.testing.assert_allclose(a[i], b, atol=1e-6)


def test_a_model_without_decoder_is_refused():
  with pytest.raises(ValueError, match="needs a model with a decoder"):
    open_loop(
      _world(decode=False), jnp.float32(1), _sequence(), jax.random.key(0)
    )


@pytest.mark.parametrize("context", [0, 12])
def test_a_context_out_of_range_is_refused(context):
  with pytest.raises(ValueError, match="context must be from 1 to 11"):
    _run(_sequence(), context=context)


def test_a_batch_of_sequences_is_refused():
  batch = jax.tree.map(lambda x: x[None], _sequence())
  with pytest.raises(ValueError, match="vmap open_loop"):
    _run(batch)


def _pair(sequences, length=50):
  true = np.full((sequences, length, 8, 8, 3), 0.25, np.float32)
  return true, true + 0.5


def test_the_video_shows_truth_model_and_error_below_each_other(
  tmp_path, monkeypatch
):
  shown = {}
  monkeypatch.setattr(
    "jplanet.video.write_video",
    lambda path, frames, **options: shown.update(frames=frames, **options),
  )
  open_loop_video(tmp_path / "a", *_pair(2), fps=20, scale=4)
  frames = shown["frames"]
  assert frames.shape == (50, 3 * 8 + 2 * 2, 2 * 8 + 2, 3)
  assert shown["fps"] == 20 and shown["scale"] == 4
  for left in (0, 10):
    assert (frames[:, :8, left : left + 8] == 64).all()
    assert (frames[:, 10:18, left : left + 8] == 192).all()
    # (0.75 - 0.25 + 1) / 2 = 3/4
    assert (frames[:, 20:, left : left + 8] == 192).all()


def test_the_video_of_one_sequence_is_written(tmp_path):
  true, predicted = _pair(1, length=6)
  path = open_loop_video(tmp_path / "a", true[0], predicted[0])
  assert path.is_file() and path.suffix in (".mp4", ".gif")


def test_the_figure_has_the_papers_columns_and_rows(tmp_path):
  pytest.importorskip("matplotlib")
  path = open_loop_figure(tmp_path / "new" / "a.svg", *_pair(2), context=5)
  words = path.read_text()
  columns = ["Context", 6, *range(10, 51, 5)]
  for text in [*columns, "True", "Model", "Error"]:
    assert words.count(f"<!-- {text} -->") == 2
  assert words.count("<image ") == 2 * 3 * len(columns)


@pytest.mark.parametrize(
  "length, context, columns",
  [(8, 3, ["Context", 4, 5]), (6, 5, ["Context", 6]), (12, 5, [6, 10])],
)
def test_other_lengths_give_fewer_columns(tmp_path, length, context, columns):
  pytest.importorskip("matplotlib")
  pair = _pair(1, length)
  words = open_loop_figure(tmp_path / "a.svg", *pair, context=context)
  words = words.read_text()
  for text in columns:
    assert f"<!-- {text} -->" in words
  assert "<!-- 15 -->" not in words


def test_pictures_that_do_not_match_are_refused(tmp_path):
  true, predicted = _pair(1)
  for draw in (open_loop_figure, open_loop_video):
    with pytest.raises(ValueError, match="of one shape"):
      draw(tmp_path / "a.png", true, predicted[:, 1:])
  with pytest.raises(ValueError, match="context must be from 1 to 49"):
    open_loop_figure(tmp_path / "a.png", true, predicted, context=50)
