"""Weights cast and joined once for all steps of a rollout."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jlejepa import dots
from jlejepa.runtime.config import load_config
from jplanet.unroll import imagined_return
from jplanet.world_model import make_planet

CASES = [
  ("rssm", "reset_before"),
  ("rssm", "reset_after"),
  ("ssm", "reset_before"),
  ("drnn", "reset_before"),
]

OTHER = {"float32": "bfloat16", "bfloat16": "float32"}


def make(kind, gru, dot):
  options = [
    f"model.kind={kind}",
    f"model.gru={gru}",
    f"model.plan_dot={dot}",
    "model.reward_zero_init=False",
    "model.belief=16",
    "model.hidden=16",
  ]
  config = load_config("planet.py:cpu", options)
  model = make_planet(config, action_dim=2, image_size=32)
  return model, jax.jit(model.init)(jax.random.key(0))


@pytest.mark.slow
@pytest.mark.parametrize("dot", ["float32", "bfloat16"])
@pytest.mark.parametrize(("kind", "gru"), CASES)
def test_prepared_weights_give_the_same_states_and_rewards(kind, gru, dot):
  model, params = make(kind, gru, dot)
  ready = model.prepare(params)
  state, action = model.initial(), jnp.array([0.3, -0.7])
  for key in jax.random.split(jax.random.key(1), 3):
    one = model.imagine(params, state, action, key)
    two = model.imagine(ready, state, action, key)
    for a, b in zip(one, two, strict=True):
      np.testing.assert_array_equal(a, b)
    state = one
  actions = jnp.stack([action, -action])
  value = lambda params: imagined_return(model, params, state, actions)
  assert value(params) == value(ready)
  assert model.reward(params, state) != 0
  assert model.reward(params, state) == model.reward(ready, state)


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "gru"), CASES)
def test_a_rollout_casts_no_kernel_at_its_steps(kind, gru):
  model, params = make(kind, gru, "bfloat16")
  ready = model.prepare(params)
  kernels = [
    x for x in jax.tree.leaves((ready["cell"], ready["reward"])) if x.ndim == 2
  ]
  assert kernels and all(x.dtype == jnp.bfloat16 for x in kernels)

  def step_of(model):
    rollout = lambda params, actions: imagined_return(
      model, params, model.initial(), actions
    )
    jaxpr = jax.make_jaxpr(rollout)(params, jnp.zeros((3, 2)))
    scans = [e for e in jaxpr.eqns if e.primitive.name == "scan"]
    return str(scans[-1].params["jaxpr"])

  # Of one example's step only kernels have two axes.
  cast = re.compile(r"bf16\[\d+,\d+\] = convert_element_type")
  assert not cast.search(step_of(model))
  assert cast.search(step_of(model._replace(prepare=lambda params: params)))


@pytest.mark.parametrize("meant", ["float32", "bfloat16"])
def test_auto_plans_as_the_type_that_it_stands_for(monkeypatch, meant):
  sets = {"float32": [], "bfloat16": ["avx512_bf16"]}[meant]
  monkeypatch.setattr(dots, "vector_sets", lambda: sets)
  (auto, params), (named, _) = (
    make("rssm", "reset_after", dot) for dot in ("auto", meant)
  )
  actions = jax.random.normal(jax.random.key(1), (5, 2))
  one, two, other = (
    imagined_return(model, params, model.initial(), actions)
    for model in (auto, named, make("rssm", "reset_after", OTHER[meant])[0])
  )
  assert one == two != other
  assert load_config("planet.py:cpu").model.plan_dot == "auto"
