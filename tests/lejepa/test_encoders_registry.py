"""Encoders by name: options, sizes, shapes of features."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jlejepa import dots
from jlejepa.encoders import (
  ENCODERS,
  default_options,
  from_function,
  make_encoder,
  make_projector,
)
from jlejepa.encoders.compact import make_compact
from jlejepa.runtime.config import load_config


def shape(*sides):
  return jax.ShapeDtypeStruct(sides, jnp.float32)


def variable_shapes(encoder, *sides):
  """The shapes of an encoder's variables, without making them."""
  return jax.eval_shape(encoder.init, jax.random.key(0), shape(*sides))


def count(tree):
  return sum(x.size for x in jax.tree.leaves(tree))


# torchvision's published counts of the whole classifiers, less their heads of
# 1000 classes, `(D + 1) * 1000`.
TORCHVISION = [
  ("resnet", dict(depth=18), 11_689_512 - 513_000),
  ("resnet", dict(depth=34), 21_797_672 - 513_000),
  ("resnet", dict(depth=50), 25_557_032 - 2_049_000),
  ("vit", dict(size="base"), 86_567_656 - 769_000),
  ("vit", dict(size="large"), 304_326_632 - 1_025_000),
  ("vit", dict(size="huge", patch=14), 632_045_800 - 1_281_000),
  ("convnext", dict(size="tiny"), 28_589_128 - 769_000),
]
# timm's, in the same way; given there in millions for the small ConvNeXts.
TIMM = [
  ("vit", dict(size="tiny"), 5_717_416 - 193_000),
  ("vit", dict(size="small"), 22_050_664 - 385_000),
]
TIMM_MILLIONS = [
  ("vit", dict(size="giant", patch=14), 1012.61 - 1.409),
  ("convnext", dict(size="atto"), 3.70 - 0.321),
  ("convnext", dict(size="femto"), 5.22 - 0.385),
  ("convnext", dict(size="pico"), 9.05 - 0.513),
  ("convnext", dict(size="nano"), 15.59 - 0.641),
  ("convnext", dict(size="atto", grn=True), 3.71 - 0.321),
  ("convnext", dict(size="nano", grn=True), 15.62 - 0.641),
]


@pytest.mark.parametrize("name, options, published", TORCHVISION + TIMM)
def test_parameters_are_as_many_as_published(name, options, published):
  variables = variable_shapes(make_encoder(name, **options), 2, 224, 224, 3)
  assert count(variables["params"]) == published
  assert {x.dtype for x in jax.tree.leaves(variables)} == {np.dtype("f4")}


@pytest.mark.parametrize("name, options, millions", TIMM_MILLIONS)
def test_parameters_are_as_many_million_as_published(name, options, millions):
  variables = variable_shapes(make_encoder(name, **options), 2, 224, 224, 3)
  assert count(variables["params"]) == pytest.approx(millions * 1e6, abs=6e3)


@pytest.mark.parametrize("name", ["compact", "vit"])
@pytest.mark.parametrize(
  "sets, half", [(["avx2"], False), (["amx_bf16"], True)]
)
def test_auto_is_bfloat16_where_it_is_multiplied(monkeypatch, name, sets, half):
  monkeypatch.setattr(jax, "default_backend", lambda: "cpu")
  monkeypatch.setattr(dots, "vector_sets", lambda: sets)
  encoder = make_encoder(name, dot="auto")
  variables = variable_shapes(encoder, 2, 32, 32, 3)
  apply = lambda *args: encoder.apply(*args)[0].embedding
  program = str(jax.make_jaxpr(apply)(variables, shape(2, 32, 32, 3)))
  assert ("bf16" in program) == half


@pytest.mark.parametrize("preset", ["digits", "cifar10_cpu"])
def test_the_presets_for_cpus_fit_the_processor(preset):
  encoder = load_config(f"lejepa.py:{preset}").encoder
  assert encoder[encoder.name].dot == "auto"


def test_the_compact_encoder_has_the_weights_of_its_kernels():
  params = variable_shapes(make_encoder("compact"), 2, 32, 32, 3)["params"]
  kernels = 16 * (3 * 32 + 32 * 64 + 64 * 128) + 9 * (64**2 + 2 * 128**2)
  norms = 2 * (32 + 2 * 64 + 3 * 128 + 256)
  assert count(params) == kernels + 128 * 256 + norms


@pytest.mark.parametrize(
  "name, options, sizes, maps, width, previous",
  [
    ("compact", {}, (32, 24, 16), (4, 3, 2), 256, 128),
    (
      "compact",
      dict(widths=(32, 64), blocks=(1, 1), out=96, stem_stride=1),
      (8,),
      (4,),
      96,
      64,
    ),
    ("vit", dict(patch=16), (224, 96), (14, 6), 384, 384),
    ("vit", dict(patch=14, registers=4), (224, 98), (16, 7), 384, 384),
    ("vit", dict(size="mini", patch=4, image=32), (32, 16), (8, 4), 128, 128),
    ("resnet", {}, (224, 96), (7, 3), 512, 512),
    ("resnet", dict(stem="small"), (32, 24), (4, 3), 512, 512),
    ("convnext", {}, (224, 96), (7, 3), 640, 640),
    ("convnext", dict(size="atto", patch=1), (32, 16), (4, 2), 320, 320),
  ],
)
def test_the_same_weights_take_every_size_of_view(
  name, options, sizes, maps, width, previous
):
  encoder = make_encoder(name, **options)
  variables = variable_shapes(encoder, 2, sizes[0], sizes[0], 3)
  key = jax.random.key(0)
  apply = lambda v, x: encoder.apply(v, x, train=True, key=key)
  for size, side in zip(sizes, maps):
    x = shape(2, size, size, 3)
    features, stats = jax.eval_shape(apply, variables, x)
    assert features.embedding.shape == (2, width)
    assert features.previous.shape == (2, previous)
    assert features.tokens.shape == (2, side, side, width)
    assert {x.dtype for x in features} == {np.dtype("f4")}
    assert jax.tree.map(jnp.shape, stats) == jax.tree.map(
      jnp.shape, variables["batch_stats"]
    )


def test_options_are_what_the_makers_take():
  defaults = default_options()
  assert list(defaults) == list(ENCODERS)
  for name, options in defaults.items():
    signature = inspect.signature(ENCODERS[name])
    assert list(signature.parameters) == list(options)
    assert inspect._empty not in options.values()
    make_encoder(name, **options)


@pytest.mark.parametrize(
  "name, options, message",
  [
    ("compcat", {}, "unknown encoder 'compcat'.*did you mean 'compact'"),
    ("vit", dict(sise="tiny"), "'sise'.*did you mean 'size'"),
    ("vit", dict(size="smal"), "unknown size 'smal'.*did you mean 'small'"),
    ("vit", dict(patch=16, image=100), "image=100 .*patch=16"),
    ("vit", dict(patch=0), "patch must be an integer of at least 1"),
    ("vit", dict(registers=-1), "registers must be"),
    ("vit", dict(pool="max"), "unknown pool 'max'"),
    ("vit", dict(drop_path=1.0), r"drop_path must be in \[0, 1\)"),
    ("vit", dict(layer_scale=-1.0), "layer_scale must be"),
    ("vit", dict(dtype="float16"), "did you mean 'bfloat16'"),
    ("resnet", dict(depth=101), "unknown depth 101: choose from 18, 34, 50"),
    ("resnet", dict(stem="cifar"), "unknown stem 'cifar'"),
    ("resnet", dict(form="patch"), "did you mean 'patches'"),
    ("convnext", dict(patch=8), "unknown patch 8: choose from 4, 2, 1"),
    ("compact", dict(widths=(8,)), "one number per stage"),
    ("compact", dict(widths=(8, 0, 8)), "widths must be"),
    ("compact", dict(blocks=(0, -1, 0)), "blocks must be"),
    ("compact", dict(stem_stride=True), "unknown stem_stride True"),
    ("compact", dict(out_activation="no"), "unknown out_activation 'no'"),
    ("compact", dict(dot="bf16"), "unknown dot 'bf16': .*auto"),
  ],
)
def test_wrong_options_are_refused_in_one_line(name, options, message):
  with pytest.raises(ValueError, match=message) as error:
    make_encoder(name, **options)
  assert "\n" not in str(error.value)


@pytest.mark.parametrize(
  "name, options, side, message",
  [
    ("vit", dict(patch=16), 100, "100 pixels .* patches of 16.* 96 or 112"),
    ("vit", dict(patch=16), 8, "8 pixels .* patches of 16.* give images of 16"),
    ("convnext", {}, 30, "30 pixels .* patches of 4"),
    ("convnext", {}, 16, "16 pixels .* at least 32"),
    ("compact", dict(widths=(8,) * 4, blocks=(0,) * 4), 8, "1x1 map is too"),
  ],
)
def test_images_that_do_not_fit_are_refused(name, options, side, message):
  with pytest.raises(ValueError, match=message):
    variable_shapes(make_encoder(name, **options), 2, side, side, 3)


@pytest.mark.parametrize("inputs", [(5, 3), (5, 4, 3)])
def test_a_function_is_an_encoder_of_inputs_of_any_shape(inputs):
  flat = lambda x: x.reshape(x.shape[0], -1)
  encoder = from_function(
    lambda key, x: {"w": jax.random.normal(key, (flat(x).shape[1], 7))},
    lambda params, x: flat(x) @ params["w"],
  )
  x = jax.random.normal(jax.random.key(1), inputs)
  variables = encoder.init(jax.random.key(0), x)
  features, stats = encoder.apply(variables, x, train=True, key=None)
  np.testing.assert_array_equal(
    features.embedding, flat(x) @ variables["params"]["w"]
  )
  np.testing.assert_array_equal(features.embedding, features.previous)
  np.testing.assert_array_equal(features.tokens[:, 0, 0], features.embedding)
  assert stats == variables["batch_stats"] == {}


def test_a_function_must_return_embeddings():
  encoder = from_function(lambda key, x: {}, lambda params, x: x)
  with pytest.raises(ValueError, match=r"embeddings \[N=5, D\].*\[5, 4, 3\]"):
    encoder.apply(encoder.init(None, None), jnp.zeros((5, 4, 3)))


def test_the_form_of_a_convolution_is_chosen_by_backend(monkeypatch):
  operations = {}
  x = jnp.zeros((2, 8, 8, 3))
  for backend in ("cpu", "tpu"):
    monkeypatch.setattr(jax, "default_backend", lambda b=backend: b)
    encoder = make_compact(widths=(4,), blocks=(0,), out=4)
    variables = encoder.init(jax.random.key(0), x)
    text = jax.make_jaxpr(encoder.apply)(variables, x)
    operations[backend] = "conv_general_dilated" in str(text)
  assert operations == {"cpu": False, "tpu": True}


@pytest.mark.parametrize(
  "options", [dict(layers=-1), dict(hidden=0), dict(out=0), dict(dot="x")]
)
def test_wrong_projectors_are_refused(options):
  with pytest.raises(ValueError, match=r"needs layers >= 0|unknown dot"):
    make_projector(**options)
