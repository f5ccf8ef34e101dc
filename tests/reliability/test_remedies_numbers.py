"""Remedies switched off: gradients, simulations and compilations."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from dm_control.rl.control import PhysicsError

import jplanet.learner
from jlejepa.runtime.nonfinite import NonFiniteError
from jplanet import trainer
from jplanet.agent import Agent
from jplanet.collect import make_batched_act, planned_policy
from jplanet.envs import make_env, suite
from jplanet.trainer import Trainer
from jplanet.types import Batch


def test_fault_14_one_bad_gradient_would_end_the_weights(toy_model):
  """Remedy: what is not finite is left out in the compiled step."""
  adam, key = optax.adam(0.1), jax.random.key(0)

  def train():
    state = jplanet.learner.init_state(key, toy_model, adam)
    step = jax.jit(jplanet.learner.make_train_step(toy_model, adam))
    for reward in ([1.0, 2.0], [jnp.nan, 0.0], [1.0, 2.0]):
      state, _ = step(state, Batch(None, None, jnp.array(reward)), key)
    return np.asarray(state.params["w"])

  with pytest.MonkeyPatch.context() as off:
    off.setattr(jplanet.learner, "keep_finite", lambda finite, new, old: new)
    assert np.isnan(train()).any()
  assert np.isfinite(train()).all()


def test_fault_15_a_run_that_learns_nothing_would_end_well(
  toy_fit, tmp_path, monkeypatch
):
  """Remedy: too many bad gradients in a row are an error."""
  sample = Trainer.step_inputs

  def poisoned(self, update):
    inputs = sample(self, update)
    inputs["batch"].reward[:] = np.nan
    return inputs

  monkeypatch.setattr(Trainer, "step_inputs", poisoned)
  options = ("train.updates_per_collect=10", "train.max_episodes=4")
  with pytest.MonkeyPatch.context() as off:
    off.setattr(trainer, "check_gradients", lambda state: None)
    result = toy_fit(tmp_path / "off", *options)
  assert result["exit_code"] == 0
  assert result["skipped_total"] == result["updates"] == 20
  with pytest.raises(NonFiniteError):
    toy_fit(tmp_path / "on", *options)


def test_fault_16_one_diverging_simulation_would_end_the_run():
  """Remedy: the environment ends its episode as if time were up."""

  def diverge():
    env = make_env("cartpole_swingup", size=8, renderer="ray")
    env.reset()
    env.physics.data.qvel[:] = 1e12
    return env.step(np.zeros(1))

  with pytest.MonkeyPatch.context() as off:
    off.setattr(suite, "_physics_errors", lambda: ())
    with pytest.raises(PhysicsError):
      diverge()
  assert diverge().last()


def test_fault_16_simulations_that_always_diverge_would_pass_for_a_run(
  toy_fit, dial, tmp_path, monkeypatch
):
  """Remedy: so many in a row are an error."""

  class Diverging(dial):
    physics_errors = 0

    def step(self, action):
      step = super().step(action)
      self.physics_errors += step.last()
      return step

  monkeypatch.setattr(trainer, "MAX_DIVERGED", 10**9)
  result = toy_fit(tmp_path, env=Diverging)
  assert result["exit_code"] == 0
  assert result["physics_errors"] == result["episodes"]


def test_fault_25_acting_would_compile_twice_after_a_resume():
  """Remedy: what the agent carries is put where the weights are."""
  agent = Agent(
    init=lambda: jnp.zeros(()),
    act=lambda params, carry, image, key, noise: (params["w"][None], carry + 1),
  )
  # As a checkpoint's weights are: on a device by name.
  params = jax.device_put({"w": jnp.float32(1)}, jax.devices()[0])
  images = np.zeros((2, 4, 4, 3), np.uint8)

  def programs(place):
    batched_act = make_batched_act(agent, candidates=1)
    policy = planned_policy(
      batched_act, agent, params, jax.random.key(0), [1, 2], 0.0
    )
    with pytest.MonkeyPatch.context() as off:
      off.setattr(jax, "device_put", place)
      carry = policy.init()
    for t in range(3):
      _, carry = policy.act(carry, images, t)
    return batched_act._cache_size()

  assert programs(lambda tree, place: tree) == 2
  assert programs(jax.device_put) == 1
