"""What the encoders compute, against plain NumPy in float64.

Weights are random in every place, biases and scales included: first weights
of 0 and 1 would hide much. Some are small, so that what a normalisation divides
has about the variance of its epsilon.
"""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from scipy.special import erf

from jlejepa.encoders import make_encoder, make_projector
from jlejepa.encoders.vit import resample


def random_variables(encoder, inputs, small):
  """Draws weights; those whose path matches `small` are near 0."""
  rng = np.random.default_rng(0)

  def draw(path, leaf):
    name, shape = path[-1].key, leaf.shape
    x = rng.normal(size=shape).astype(np.float32)
    if name == "kernel":
      x /= np.sqrt(np.prod(shape[:-1], dtype=np.float32))
    elif name == "var":
      x = 0.5 + np.square(x)
    else:
      x = 0.3 * x + name.endswith("scale")
    path = "/".join(part.key for part in path[1:])
    return np.float32(2e-3) * x if re.search(small, path) else x

  shapes = jax.eval_shape(encoder.init, jax.random.key(0), inputs)
  return jax.tree_util.tree_map_with_path(draw, shapes)


def images(count, side):
  rng = np.random.default_rng(1)
  return rng.normal(size=(count, side, side, 3)).astype(np.float32)


def run(encoder, x, *, small, train=False):
  """Returns variables in float64, the features and the running statistics."""
  variables = random_variables(encoder, x, small)
  apply = jax.jit(lambda variables, x: encoder.apply(variables, x, train=train))
  features, stats = apply(variables, x)
  return jax.tree.map(np.float64, variables), features, stats


def same(found, wanted, tolerance=1e-4):
  wanted = np.asarray(wanted)
  assert found.shape == wanted.shape
  assert np.abs(found - wanted).max() < tolerance * np.abs(wanted).max()


def dense(x, p):
  return x @ p["kernel"] + p.get("bias", 0)


def gelu(x):
  return x * (1 + erf(x / np.sqrt(2))) / 2


def relu(x):
  return np.maximum(x, 0)


def layer_norm(x, p):
  x = x - x.mean(-1, keepdims=True)
  x = x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-6)
  return x * p["scale"] + p["bias"]


def conv(x, kernel, stride=1, padding=0, groups=1):
  """Correlates `[N, H, W, C]` with `[k, k, C / groups, D]`, tap by tap."""
  size = kernel.shape[0]
  x = np.pad(x, ((0, 0), (padding,) * 2, (padding,) * 2, (0, 0)))
  height, width = ((side - size) // stride + 1 for side in x.shape[1:3])
  total = 0
  for i in range(size):
    for j in range(size):
      part = x[:, i : i + stride * height : stride]
      part = part[:, :, j : j + stride * width : stride]
      part = part[:, :height, :width]
      total = total + (
        part @ kernel[i, j] if groups == 1 else part * kernel[i, j, 0]
      )
  return total


def norm_of(variables, new):
  """Returns BatchNorm by name: of the batch if `new` is a dict to fill."""

  def norm(x, name):
    p, old = variables["params"][name], variables["batch_stats"][name]
    mean, var = old["mean"], old["var"]
    if new is not None:
      axes = tuple(range(x.ndim - 1))
      mean, var = x.mean(axes), x.var(axes)  # biased, over N alone
      new[name] = {
        "mean": 0.9 * old["mean"] + 0.1 * mean,
        "var": 0.9 * old["var"] + 0.1 * var,
      }
    return (x - mean) / np.sqrt(var + 1e-5) * p["scale"] + p["bias"]

  return norm


def vit(p, x, *, patch, grid, heads, depth, registers):
  """Returns the embedding, that of one block earlier, and the patch tokens."""
  n, side = x.shape[0], x.shape[1] // patch
  kernel = p["patch"]["kernel"].reshape(patch, patch, 3, -1)
  tokens = conv(x, kernel, patch) + p["patch"]["bias"]
  position = p["position"][1:].reshape(grid, grid, -1)
  tokens = (tokens + bicubic(position, side)).reshape(n, side**2, -1)
  first = [p["cls"] + p["position"][:1], p["registers"]]
  first = np.broadcast_to(
    np.concatenate(first), (n, 1 + registers, len(p["cls"][0]))
  )
  x = np.concatenate([first, tokens], 1)
  for i in range(depth):
    before, b = x, p[f"block{i}"]
    qkv = dense(layer_norm(x, b["attention_norm"]), b["qkv"])
    q, k, v = np.split(qkv, 3, -1)
    size, mixed = q.shape[-1] // heads, []
    for h in range(heads):
      part = slice(h * size, (h + 1) * size)
      score = q[..., part] @ k[..., part].transpose(0, 2, 1) / np.sqrt(size)
      weight = np.exp(score - score.max(-1, keepdims=True))
      mixed.append(weight / weight.sum(-1, keepdims=True) @ v[..., part])
    mixed = dense(np.concatenate(mixed, -1), b["attention"])
    x = x + b["attention_scale"] * mixed
    hidden = gelu(dense(layer_norm(x, b["mlp_norm"]), b["mlp_in"]))
    x = x + b["mlp_scale"] * dense(hidden, b["mlp_out"])
  patches = layer_norm(x, p["norm"])[:, 1 + registers :]
  return (
    layer_norm(x, p["norm"])[:, 0],
    layer_norm(before, p["norm"])[:, 0],
    patches.reshape(n, side, side, -1),
  )


def bicubic(position, side):
  """Pillow's antialiased bicubic resampling of `[g, g, D]`."""
  planes = [
    Image.fromarray(plane.astype(np.float32)).resize(
      (side, side), Image.Resampling.BICUBIC
    )
    for plane in np.moveaxis(position, -1, 0)
  ]
  return np.stack(planes, -1).astype(np.float64)


@pytest.mark.parametrize("side", [16, 8])
def test_a_vision_transformer(side):
  options = dict(size="mini", patch=4, image=16, registers=2)
  encoder = make_encoder("vit", drop_path=0.0, layer_scale=0.1, **options)
  small = "^(patch|cls|position|registers)|(attention|mlp)_scale"
  stored = random_variables(encoder, images(2, 16), small)
  x = images(3, side)
  features, _ = jax.jit(encoder.apply)(stored, x)
  params = jax.tree.map(np.float64, stored["params"])
  wanted = vit(
    params, np.float64(x), patch=4, grid=4, heads=4, depth=6, registers=2
  )
  for found, value in zip(features, wanted):
    same(found, value)


@pytest.mark.parametrize("grid, side", [(14, 6), (8, 4), (4, 7), (5, 5)])
def test_positions_are_resampled_as_pillow_does(grid, side):
  position = np.random.default_rng(0).normal(size=(grid, grid, 3))
  found = resample(jnp.asarray(position.reshape(-1, 3)), grid, (side, side))
  wanted = bicubic(position, side).reshape(-1, 3)
  np.testing.assert_allclose(found, wanted, atol=3e-6)


def resnet(variables, x, *, blocks, bottleneck, small, new=None):
  p, norm = variables["params"], norm_of(variables, new)

  def layer(x, name, stride=1):
    kernel = p[name]["kernel"]
    return norm(conv(x, kernel, stride, len(kernel) // 2), f"{name}_norm")

  if small:
    x = relu(layer(x, "stem"))
  else:
    x = relu(layer(x, "stem", 2))
    # After a ReLU padding with 0 is padding with -inf.
    side = x.shape[1] // 2
    x = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    taps = [x[:, i:, j:] for i in range(3) for j in range(3)]
    x = np.max([t[:, : 2 * side : 2, : 2 * side : 2] for t in taps], 0)
  for stage, count in enumerate(blocks):
    for i in range(count):
      name, stride = f"block{stage}_{i}", 2 if stage and not i else 1
      before, strides = x, (1, stride, 1) if bottleneck else (stride, 1)
      for j, step in enumerate(strides):
        x = layer(x, f"{name}_conv{j}", step)
        x = relu(x) if j + 1 < len(strides) else x
      short = before
      if f"{name}_shortcut" in p:
        short = layer(before, f"{name}_shortcut", stride)
      x = relu(x + short)
  return x.mean((1, 2)), before.mean((1, 2)), x


@pytest.mark.slow
def test_a_resnet_18_in_training():
  x = images(6, 16)
  encoder = make_encoder("resnet", depth=18, stem="small")
  variables, features, stats = run(encoder, x, small="kernel", train=True)
  new = {}
  wanted = resnet(
    variables, x, blocks=(2,) * 4, bottleneck=False, small=True, new=new
  )
  for found, value in zip(features, wanted):
    same(found, value, 1e-3)
  jax.tree.map(same, stats, new)


@pytest.mark.slow
def test_a_resnet_50():
  x = images(2, 32)
  encoder = make_encoder("resnet", depth=50)
  variables, features, stats = run(encoder, x, small="never")
  wanted = resnet(
    variables, x, blocks=(3, 4, 6, 3), bottleneck=True, small=False
  )
  for found, value in zip(features, wanted):
    same(found, value)
  jax.tree.map(same, stats, variables["batch_stats"])


def convnext(p, x, *, blocks, patch):
  def patches(x, layer, size):
    return conv(x, layer["kernel"], size) + layer["bias"]

  x = layer_norm(patches(x, p["stem"], patch), p["stem_norm"])
  for stage, count in enumerate(blocks):
    if stage:
      x = layer_norm(x, p[f"down{stage}_norm"])
      x = patches(x, p[f"down{stage}"], 2)
    for i in range(count):
      part = lambda name, at=f"block{stage}_{i}_": p[at + name]
      before, y = x, conv(x, part("conv")["kernel"], 1, 3, groups=x.shape[-1])
      y = layer_norm(y + part("conv")["bias"], part("norm"))
      y = gelu(dense(y, part("in")))
      if f"block{stage}_{i}_grn" in p:
        response = np.sqrt((y**2).sum((1, 2), keepdims=True))
        response /= response.mean(-1, keepdims=True) + 1e-6
        y = y + part("grn")["scale"] * y * response + part("grn")["bias"]
        x = x + dense(y, part("out"))
      else:
        x = x + dense(y, part("out")) * part("scale")
  pooled = [layer_norm(y.mean((1, 2)), p["norm"]) for y in (x, before)]
  return *pooled, x


@pytest.mark.parametrize("grn", [False, True])
def test_a_convnext(grn):
  x = images(2, 16)
  options = dict(size="atto", patch=2, grn=grn, drop_path=0.0)
  small = r"^(stem|down\d/)|_conv/|_out/|\d_scale$"
  encoder = make_encoder("convnext", **options)
  variables, features, _ = run(encoder, x, small=small)
  wanted = convnext(variables["params"], x, blocks=(2, 2, 6, 2), patch=2)
  for found, value in zip(features, wanted):
    same(found, value)


@pytest.mark.parametrize("train", [False, True])
def test_the_compact_encoder(train):
  x = images(4, 16)
  encoder = make_encoder("compact", widths=(8, 16), blocks=(1, 2), out=12)
  variables, features, stats = run(encoder, x, small="kernel", train=train)
  new = {} if train else None
  p, norm = variables["params"], norm_of(variables, new)
  for i, blocks in enumerate((1, 2)):
    x = conv(x, p[f"down{i}"]["kernel"], 2, 1)
    x = relu(norm(x, f"down{i}_norm"))
    for j in range(blocks):
      name = f"block{i}_{j}"
      x = x + relu(norm(conv(x, p[name]["kernel"], 1, 1), f"{name}_norm"))
  same(features.previous, x.mean((1, 2)))
  x = relu(norm(conv(x, p["out"]["kernel"]), "out_norm"))
  same(features.tokens, x)
  same(features.embedding, x.mean((1, 2)))
  jax.tree.map(same, stats, new if train else variables["batch_stats"])


@pytest.mark.parametrize("train", [False, True])
def test_the_projector(train):
  x = np.random.default_rng(2).normal(size=(32, 6)).astype(np.float32)
  projector = make_projector(layers=3, hidden=8, out=5)
  variables, found, stats = run(projector, x, small="kernel", train=train)
  new = {} if train else None
  p, norm = variables["params"], norm_of(variables, new)
  for i in range(2):
    x = relu(norm(dense(x, p[f"hidden{i}"]), f"hidden{i}_norm"))
  same(found, dense(x, p["output"]))
  jax.tree.map(same, stats, new if train else variables["batch_stats"])
