"""Open-loop video prediction: what a world model expects to see.

The diagnostic of a world model (Figure 10 and Appendix H): a few frames are
filtered, then the model dreams on with the recorded actions alone.
"""

import os
import pathlib

import jax
import jax.numpy as jnp
import numpy as np

from jplanet import unroll, video
from jplanet.preprocess import to_uint8
from jplanet.types import Array, Batch, Key, Params, WorldModel


def open_loop(
  model: WorldModel,
  params: Params,
  sequence: Batch,
  key: Key,
  *,
  context: int = 5,
) -> tuple[Array, Array]:
  """Predicts a sequence from its first frames and its actions.

  The first `context` frames are filtered with their observations, and their
  predictions are reconstructions; from there states are sampled from the
  prior with the recorded actions, and decoded (Appendix H). Vmap over
  sequences and keys, and jit, at the call.

  Args:
    model: a world model with a decoder.
    params: its parameters.
    sequence: one `Batch` without a leading `B`.
    key: for dequantisation noise and samples.
    context: frames to filter, 1 to T - 1.

  Returns:
    The true and the predicted frames, float32 `[T, S, S, 3]` in [0, 1]. A
    true pixel is its byte over 256, as in `preprocess.postprocess`.

  Raises:
    ValueError: when the model has no decoder or context is out of range.
  """
  if model.decode is None:
    raise ValueError(
      "open-loop video needs a model with a decoder, and this one has none; "
      "judge it by its predicted rewards"
    )
  image, action = sequence.image, sequence.action
  if image.ndim != 4:
    raise ValueError(
      f"expected one sequence of images [T, S, S, 3], got {image.shape}; "
      "vmap open_loop over a batch"
    )
  if not 1 <= context < len(image):
    raise ValueError(
      f"context must be from 1 to {len(image) - 1} for {len(image)} frames, "
      f"got {context}"
    )
  filter_key, dream_key = jax.random.split(key)
  seen = unroll.observe(
    model, params, image[:context], action[:context], filter_key
  )
  last = jax.tree.map(lambda x: x[-1], seen)
  dreamt = unroll.imagine(model, params, last, action[context:], dream_key)
  states = jax.tree.map(lambda *x: jnp.concatenate(x), seen, dreamt)
  predicted = jax.vmap(lambda state: model.decode(params, state))(states)
  true = image.astype(jnp.float32) / 256
  return true, jnp.clip(predicted.astype(jnp.float32), 0, 1)


def open_loop_video(
  path: str | os.PathLike,
  true: Array,
  predicted: Array,
  *,
  fps: int = 20,
  scale: int = 4,
) -> pathlib.Path:
  """Writes truth on top, model below it, (model - truth + 1) / 2 at the foot.

  Args:
    path: as for `video.write_video`.
    true: `[N, T, S, S, 3]` in [0, 1], shown side by side, or one `[T, ...]`.
    predicted: of the same shape.
    fps: frames per second.
    scale: by which each side is enlarged.

  Returns:
    The path of the file written.

  Raises:
    ValueError: when the shapes differ or are others.
  """
  true, predicted = _sequences(true, predicted)
  rows = [*true, *predicted, *_error(true, predicted)]
  frames = video.tile([to_uint8(row) for row in rows], columns=len(true))
  return video.write_video(path, frames, fps=fps, scale=scale)


def open_loop_figure(
  path: str | os.PathLike,
  true: Array,
  predicted: Array,
  *,
  context: int = 5,
) -> pathlib.Path:
  """Draws the figure of Appendix H: frames from left to right.

  The columns are the last context frame (for the model its reconstruction),
  the first predicted one, then every fifth, counted from 1. Each sequence has
  a row of true frames, one of the model's and one of errors, grey where there
  is none.

  Args:
    path: of the image file; its suffix gives the format.
    true: `[N, T, S, S, 3]` in [0, 1], or one `[T, S, S, 3]`.
    predicted: of the same shape.
    context: as given to `open_loop`.

  Returns:
    The path of the file written.

  Raises:
    ValueError: when the shapes differ or are others, or context is not below
      the number of frames.
  """
  from matplotlib.figure import Figure

  true, predicted = _sequences(true, predicted)
  columns = _columns(true.shape[1], context)
  picked = [column - 1 for column in columns]
  labels = ["Context", *map(str, columns[1:])]
  rows = ("True", "Model", "Error")
  figure = Figure(figsize=(0.75 * len(columns) + 0.6, 2.5 * len(true)), dpi=160)
  groups = figure.subfigures(len(true), 1, squeeze=False)[:, 0]
  for i, group in enumerate(groups):
    axes = group.subplots(
      3,
      len(columns),
      squeeze=False,
      gridspec_kw=dict(
        left=0.6 / figure.get_figwidth(),
        right=0.995,
        bottom=0.02,
        top=0.9,
        wspace=0.05,
        hspace=0.05,
      ),
    )
    pictures = (true[i], predicted[i], _error(true[i], predicted[i]))
    for row, (name, frames) in enumerate(zip(rows, pictures)):
      for axis, frame in zip(axes[row], to_uint8(frames[picked])):
        axis.imshow(frame, interpolation="nearest")
        axis.set(xticks=[], yticks=[])
        axis.spines[:].set_visible(False)
      axes[row, 0].set_ylabel(name, fontsize=8)
    for axis, label in zip(axes[0], labels):
      axis.set_title(label, fontsize=8, pad=3)
  path = pathlib.Path(path).expanduser()
  path.parent.mkdir(parents=True, exist_ok=True)
  figure.savefig(path)
  return path


def _columns(length: int, context: int) -> list[int]:
  if not 1 <= context < length:
    raise ValueError(
      f"context must be from 1 to {length - 1} for {length} frames, got "
      f"{context}"
    )
  later = [t for t in range(context + 2, length + 1) if t % 5 == 0]
  return [context, context + 1, *later]


def _sequences(true, predicted) -> tuple[np.ndarray, np.ndarray]:
  true, predicted = np.asarray(true), np.asarray(predicted)
  if true.shape != predicted.shape or true.ndim not in (4, 5):
    raise ValueError(
      "expected true and predicted frames of one shape, [N, T, S, S, 3] or "
      f"[T, S, S, 3], got {true.shape} and {predicted.shape}"
    )
  whole = (-1, *true.shape[-4:])
  return true.reshape(whole), predicted.reshape(whole)


def _error(true: np.ndarray, predicted: np.ndarray) -> np.ndarray:
  return (predicted - true + 1) / 2
