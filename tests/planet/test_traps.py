"""One test, at least, for each mistake that re-implementations make.

| trap | where (`test_...py`; `traps` is this file) |
|---|---|
| 1 alignment of actions, images, rewards | traps, traps_acting |
| 2 free nats after the sum, before the mean | traps_losses, gaussian |
| 3 std = softplus + 0.1 | traps_losses, known_answers |
| 4 sums over pixels, means over B and T | traps |
| 5 overshooting: masks, stop-gradients | overshooting, traps |
| 6 Adam's epsilon | optimizer |
| 7 GRU variant; Glorot and biases | known_answers, traps |
| 8 noise clipped, stored and filtered | traps_acting |
| 9 fresh dither when acting; float32 losses | traps_acting, traps, gaussian |
| 10 planner: one posterior sample, NaN | traps_acting, planners |
| 11 bounds of actions | the environments' tests |
| 12 no discount, no termination | traps_acting, traps |
| 13 five bits in float32 | preprocess |
| 14 clip by the global norm; skip NaN | traps_acting, optimizer |
| 15 one entry more than decisions | traps, known_answers |
| 16 settings that surprise are errors | traps_losses, traps, planners |
"""

import copy
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jplanet.collect import Policy, collect
from jplanet.drnn import make_drnn
from jplanet.learner import init_state, make_train_step
from jplanet.optimizer import make_optimizer
from jplanet.ssm import make_ssm
from jplanet.types import Batch
from jplanet.unroll import imagine, observe
from jplanet.world_model import make_planet

CONFIG = dict(
  model=dict(
    kind="rssm", encoder="patch", depth=4, state=4, belief=12, hidden=12,
    min_std=0.1, gru="reset_before", mean_only=False, belief_only=False,
    reward_layers=1, reward_units=16, reward_zero_init=False, bits=5,
    dither=True, center=False, plan_dot="float32", image_dtype="float32",
  ),
  loss=dict(image_scale=1.0, reward_scale=10.0, kl_scale=1.0, free_nats=3.0),
)  # fmt: skip


def small_planet(model=(), loss=(), size=8):
  config = copy.deepcopy(CONFIG)
  config["model"].update(model)
  config["loss"].update(loss)
  return make_planet(config, action_dim=1, image_size=size)


def init(model):
  # Threefry unrolls: an init under it takes four times as long to compile.
  return jax.jit(model.init)(jax.random.key(0, impl="rbg"))


def small_batch(seed=0, shape=(3, 5)):
  rng = np.random.default_rng(seed)
  return Batch(
    image=rng.integers(0, 256, (*shape, 8, 8, 3), dtype=np.uint8),
    action=rng.uniform(-1, 1, (*shape, 1)).astype(np.float32),
    reward=rng.uniform(0, 1, shape).astype(np.float32),
  )


class EchoEnvs:
  """Two environments whose picture and reward are the action just taken."""

  action_dim, decisions = 1, 12

  def reset(self, seeds):
    self.time = 0
    return np.zeros((len(seeds), 8, 8, 3), np.uint8)

  def step(self, actions):
    self.time += 1
    pixels = np.uint8(100 + 100 * actions)[:, :, None, None]
    images = np.broadcast_to(pixels, (len(actions), 8, 8, 3))
    done = np.full(len(actions), self.time == self.decisions)
    return images, actions[:, 0], done


def echo_episodes(count=1, seed=0):
  rng = np.random.default_rng(seed)

  def act(carry, images, t):
    return rng.uniform(-1, 1, (2, 1)).astype(np.float32), carry

  policy = Policy(init=lambda: None, act=act)
  runs = [collect(EchoEnvs(), [0, 1], policy) for _ in range(count)]
  return [episode for run in runs for episode in run]


def test_traps_1_and_15_entries_hold_the_action_that_led_to_them():
  for episode in echo_episodes():
    np.testing.assert_array_equal(episode.reward, episode.action[:, 0])
    pixels = np.uint8(100 + 100 * episode.action[1:, 0])
    np.testing.assert_array_equal(episode.image[1:, 0, 0, 0], pixels)
    assert episode.action[0] == episode.reward[0] == 0
    assert (episode.image[0] == 0).all()
    assert len(episode.reward) == EchoEnvs.decisions + 1


def test_trap_1_a_state_depends_on_its_own_action_and_on_none_after():
  model = small_planet()
  params = init(model)
  batch = small_batch()

  def rewards(actions):
    states = observe(model, params, batch.image[0], actions, jax.random.key(1))
    return jax.vmap(lambda s: model.reward(params, s))(states)

  slopes = np.abs(jax.jit(jax.jacrev(rewards))(batch.action[0])[..., 0])
  assert (np.diag(slopes) > 0).all()
  np.testing.assert_array_equal(np.triu(slopes, 1), 0)


@pytest.mark.slow
def test_trap_1_the_reward_head_fits_a_reward_that_equals_its_action():
  # Pictures are blanked, so that only the action can tell; rewards one step
  # late or early cannot be fitted at all: the action of t + 1 is not known.
  episodes = echo_episodes(count=8)
  batch = Batch(*(np.stack(x) for x in zip(*episodes)))
  batch = batch._replace(image=np.zeros_like(batch.image))
  early = np.roll(batch.reward, -1, axis=1)
  model = small_planet(loss=dict(image_scale=0.0, kl_scale=0.0))
  optimizer = make_optimizer(1e-2, eps=1e-8, eps_form="standard")
  step = jax.jit(make_train_step(model, optimizer))
  errors = {}
  for name, data in (("ours", batch), ("early", batch._replace(reward=early))):
    state = init_state(jax.random.key(0), model, optimizer)
    for _ in range(150):
      state, metrics = step(state, data, jax.random.key(1))
    # 10 * (error^2 / 2 + ln(2 pi) / 2), see trap 4.
    nll = metrics["loss_reward"] / 10
    errors[name] = 2 * (nll - 0.5 * math.log(2 * math.pi))
  # The variance of the rewards is 1/3.
  assert errors["ours"] < 0.05 and errors["early"] > 0.15, errors


def test_trap_4_losses_sum_over_pixels_and_average_over_batch_and_time():
  model = small_planet(dict(dither=False, bits=8))
  params = dict(init(model))
  # Silent decoder and reward head: they predict 0.
  for name in ("decoder", "reward"):
    params[name] = jax.tree.map(jnp.zeros_like, params[name])
  batch = small_batch()
  loss, metrics = jax.jit(model.loss)(params, batch, jax.random.key(1))
  x = batch.image / 256 - 0.5
  image = (x**2 / 2 + math.log(2 * math.pi) / 2).sum((2, 3, 4)).mean()
  reward = (batch.reward**2 / 2 + math.log(2 * math.pi) / 2).mean()
  np.testing.assert_allclose(metrics["loss_image"], image, rtol=1e-5)
  np.testing.assert_allclose(metrics["loss_reward"], 10 * reward, rtol=1e-5)
  total = sum(metrics[f"loss_{name}"] for name in ("image", "reward", "kl"))
  np.testing.assert_allclose(loss, total, rtol=1e-6)


@pytest.mark.slow
def test_trap_5_the_models_overshooting_trains_the_prior_and_stays_finite():
  plain = small_planet()
  over = small_planet(
    loss=dict(overshooting_scale=2.0, overshooting_distance=5)
  )
  params = init(plain)
  batch = small_batch()

  def value(model):
    loss = lambda p: model.loss(p, batch, jax.random.key(1))[0]
    return jax.jit(jax.value_and_grad(loss))(params)

  (low, base), (high, grads) = value(plain), value(over)
  assert high > low
  changed = jax.tree.map(lambda a, b: jnp.abs(a - b).max(), base, grads)
  assert all(np.isfinite(x).all() for x in jax.tree.leaves(grads))
  cell = changed["cell"]["params"]
  assert max(jax.tree.leaves(cell["prior_head"])) > 1e-3
  # Heads see posteriors only: overshooting gives them nothing.
  assert max(jax.tree.leaves((changed["reward"], changed["decoder"]))) < 1e-5


@pytest.mark.slow
def test_trap_7_kernels_are_glorot_uniform_and_biases_zero():
  options = dict(hidden=64, belief=64, encoder="conv")
  model = small_planet(options, size=64)
  params = dict(init(model))
  del params["mean_image"]
  for name, make in (("ssm", make_ssm), ("drnn", make_drnn)):
    cell = make(embed=64, action=2, hidden=64)
    params[name] = init(cell)
  for path, leaf in jax.tree_util.tree_leaves_with_path(params):
    name = jax.tree_util.keystr(path)
    if path[-1].key == "bias":
      expected = 1.0 if "gates" in name else 0.0
      np.testing.assert_array_equal(leaf, expected, err_msg=name)
      continue
    field = math.prod(leaf.shape[:-2])
    bound = math.sqrt(6 / (field * (leaf.shape[-2] + leaf.shape[-1])))
    assert jnp.abs(leaf).max() <= bound, name
    if leaf.size > 1000:
      assert jnp.abs(leaf).max() > 0.98 * bound, name
      np.testing.assert_allclose(
        leaf.std(), bound / math.sqrt(3), rtol=0.06, err_msg=name
      )


def test_trap_9_fast_products_are_for_planning_and_not_for_the_loss():
  model = small_planet(dict(plan_dot="bfloat16"))
  params = jax.eval_shape(model.init, jax.random.key(0))
  args = (params, small_batch(), jax.random.key(1))
  assert jax.eval_shape(model.loss, *args)[0].dtype == jnp.float32
  assert "bf16" not in str(jax.make_jaxpr(model.loss)(*args))
  args = (params, model.initial(), jnp.zeros(1), None)
  assert "bf16" in str(jax.make_jaxpr(model.imagine)(*args))


def test_trap_12_data_and_models_know_of_no_termination():
  assert Batch._fields == ("image", "action", "reward")
  parts = jax.eval_shape(small_planet().init, jax.random.key(0))
  assert set(parts) == {"mean_image", "encoder", "decoder", "reward", "cell"}


def test_trap_16_an_overshooting_distance_beyond_the_chunk_is_an_error():
  model = small_planet(
    loss=dict(overshooting_scale=1.0, overshooting_distance=6)
  )
  params = init(model)
  with pytest.raises(ValueError, match="between 2 and the sequence length 5"):
    jax.eval_shape(model.loss, params, small_batch(), jax.random.key(1))


def test_imagining_equals_single_steps_of_the_prior():
  model = small_planet()
  params = init(model)
  actions = jnp.array([[0.3], [-0.7], [1.0]])
  states = imagine(model, params, model.initial(), actions)
  state = model.initial()
  for t, action in enumerate(actions):
    state = model.imagine(params, state, action, None)
    np.testing.assert_allclose(states.belief[t], state.belief, atol=1e-6)


def test_trap_9_two_embeddings_of_one_picture_differ():
  model = small_planet()
  params = init(model)
  image = small_batch().image[0, 0]
  embeds = [model.encode(params, image, jax.random.key(t)) for t in range(2)]
  assert (embeds[0] != embeds[1]).any()
