"""One test, at least, for each mistake that re-implementations make.

| trap | here, or elsewhere |
|---|---|
| 1 alignment of actions, images, rewards | here |
| 2 free nats after the sum, before the mean | here; `test_gaussian.py` |
| 3 std = softplus + 0.1 | here; `test_known_answers.py` |
| 4 sums over pixels, means over B and T | here |
| 5 overshooting: masks, stop-gradients | `test_overshooting.py`; wiring here |
| 6 Adam's epsilon | `test_optimizer.py` |
| 7 GRU variant; Glorot and biases | here; GRU: `test_known_answers.py` |
| 8 noise clipped, stored and filtered | here |
| 9 fresh dither when acting; float32 losses | here; `test_gaussian.py` |
| 10 planner: one posterior sample, NaN | here; `test_planners.py` |
| 11 bounds of actions | the environments' tests |
| 12 no discount, no termination | here |
| 13 five bits in float32 | `test_preprocess.py` |
| 14 clip by the global norm; skip NaN | here; `test_optimizer.py` |
| 15 one entry more than decisions | here; `test_known_answers.py` |
| 16 settings that surprise are errors | here; `test_planners.py` |
"""

import copy
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jplanet.agent import make_agent
from jplanet.cells import Gaussian, GaussianHead
from jplanet.collect import Policy, collect
from jplanet.drnn import make_drnn
from jplanet.learner import init_state, make_train_step
from jplanet.losses import make_objective
from jplanet.optimizer import make_optimizer
from jplanet.planners import empty_plan
from jplanet.preprocess import preprocess
from jplanet.ssm import make_ssm
from jplanet.types import Batch, WorldModel
from jplanet.unroll import imagine, observe
from jplanet.world_model import make_planet

CONFIG = dict(
  model=dict(
    kind="rssm",
    encoder="patch",
    depth=4,
    state=4,
    belief=12,
    hidden=12,
    min_std=0.1,
    gru="reset_before",
    mean_only=False,
    belief_only=False,
    reward_layers=1,
    reward_units=16,
    reward_zero_init=False,
    bits=5,
    dither=True,
    center=False,
    plan_dot="float32",
  ),
  loss=dict(image_scale=1.0, reward_scale=10.0, kl_scale=1.0, free_nats=3.0),
)


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


def test_trap_1_an_entry_holds_the_action_that_led_to_it_and_its_reward():
  for episode in echo_episodes():
    np.testing.assert_array_equal(episode.reward, episode.action[:, 0])
    pixels = np.uint8(100 + 100 * episode.action[1:, 0])
    np.testing.assert_array_equal(episode.image[1:, 0, 0, 0], pixels)
    assert episode.action[0] == episode.reward[0] == 0
    assert (episode.image[0] == 0).all()


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


def objective(posteriors, priors, **options):
  """The loss terms of given distributions, with no image and no reward."""
  zeros = jnp.zeros(posteriors.mean.shape[:2])
  return make_objective(**options)(
    image_nll=zeros,
    reward_nll=zeros,
    posteriors=posteriors,
    priors=priors,
    overshoot=None,
  )[1]


def test_trap_2_free_nats_come_after_the_sum_and_before_the_mean():
  # 30 dimensions, std 1: KL = 30 * m^2 / 2, so 0 and 6 nats in the two steps.
  # Right: mean(max(0, 0 - 3), max(0, 6 - 3)) = 1.5. After the mean it would be
  # 0, per dimension 0 (0.2 nats each).
  mean = jnp.zeros((1, 2, 30)).at[0, 1].set(math.sqrt(6 / 15))
  ones = jnp.ones_like(mean)
  metrics = objective(Gaussian(mean, ones), Gaussian(0 * mean, ones))
  np.testing.assert_allclose(metrics["kl"], 3.0, rtol=1e-5)
  np.testing.assert_allclose(metrics["loss_kl"], 1.5, rtol=1e-5)


def test_trap_2_and_3_both_sides_of_the_plain_kl_learn():
  def loss(q, p):
    ones = jnp.ones((1, 1, 4))
    return objective(Gaussian(q, ones), Gaussian(p, ones), free_nats=1.0)[
      "loss"
    ]

  of_q, of_p = jax.grad(loss, (0, 1))(
    jnp.full((1, 1, 4), 3.0), jnp.zeros((1, 1, 4))
  )
  np.testing.assert_allclose(of_q, np.full((1, 1, 4), 3.0))
  np.testing.assert_allclose(of_p, np.full((1, 1, 4), -3.0))


def test_trap_3_std_is_softplus_plus_a_tenth():
  head = GaussianHead(1)
  params = head.init(jax.random.key(0), jnp.zeros(1))
  params = jax.tree.map(jnp.ones_like, params)
  # Input x gives softplus(x + 1) + 0.1: linear above, 0.1 below; an
  # exponential would give 22026 at 10, a maximum no slope below.
  for x, expected in ((9.0, 10.1000454), (-1.0, 0.7931472), (-21.0, 0.1)):
    std = head.apply(params, jnp.array([x])).std
    np.testing.assert_allclose(std, [expected], rtol=1e-6)


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


def fake_model(**functions):
  """A world model on the line: an action moves the state, noise if sampled."""

  def move(params, state, action, key):
    noise = 0.0 if key is None else jax.random.normal(key)
    return state + action[0] + noise

  defaults = dict(
    init=lambda key, images=None: {"w": jnp.zeros(2)},
    initial=lambda: jnp.zeros(()),
    encode=lambda params, image, key: jnp.zeros(1),
    observe=lambda params, state, action, embed, key: 100 * state + action[0],
    imagine=move,
    reward=lambda params, state: state,
    decode=None,
    features=lambda state: state[None],
    loss=lambda params, batch, key: (jnp.zeros(()), {}),
  )
  return WorldModel(**{**defaults, **functions})


def fake_planner(key, score_fn, *, warm, actions):
  """Scores given actions twice, under different keys."""
  first, second = jax.random.split(key)
  scores = jnp.stack([score_fn(actions, k) for k in (first, second)])
  return warm._replace(
    actions=actions, mean=actions, score=scores[0] - scores[1]
  )


def fake_agent(model, actions, **options):
  plan = empty_plan(*actions.shape, 1)
  planner = functools.partial(fake_planner, actions=actions)
  return make_agent(model, planner, plan, **options)


IMAGE = jnp.zeros((8, 8, 3), jnp.uint8)


def test_trap_8_noise_is_clipped_and_the_filter_gets_what_was_executed():
  agent = fake_agent(fake_model(), jnp.full((3, 1), 0.5))
  state, executed = agent.init(), []
  for t in range(3):
    action, state = agent.act({}, state, IMAGE, jax.random.key(t), 50.0)
    executed.append(action[0])
    np.testing.assert_array_equal(state.action, action)
  assert set(np.abs(executed)) == {1.0}
  # The latent of decision 3 has digested 0, then the actions of 1 and 2.
  np.testing.assert_allclose(state.latent, 100 * executed[0] + executed[1])
  quiet, _ = agent.act({}, agent.init(), IMAGE, jax.random.key(0), 0.0)
  np.testing.assert_array_equal(quiet, [0.5])


def test_trap_9_acting_dithers_the_picture_anew_at_every_decision():
  seen = []
  encode = lambda params, image, key: seen.append(preprocess(image, key))
  agent = fake_agent(fake_model(encode=encode), jnp.zeros((2, 1)))
  for t in range(2):
    agent.act({}, agent.init(), IMAGE, jax.random.key(t), 0.0)
  assert (seen[0] != seen[1]).mean() > 0.9
  model = small_planet()
  params = init(model)
  embeds = [model.encode(params, IMAGE, jax.random.key(t)) for t in range(2)]
  assert (embeds[0] != embeds[1]).any()


def test_trap_9_fast_products_are_for_planning_and_not_for_the_loss():
  model = small_planet(dict(plan_dot="bfloat16"))
  params = jax.eval_shape(model.init, jax.random.key(0))
  args = (params, small_batch(), jax.random.key(1))
  assert jax.eval_shape(model.loss, *args)[0].dtype == jnp.float32
  assert "bf16" not in str(jax.make_jaxpr(model.loss)(*args))
  args = (params, model.initial(), jnp.zeros(1), None)
  assert "bf16" in str(jax.make_jaxpr(model.imagine)(*args))


def test_trap_10_candidates_share_one_posterior_sample():
  def observe_with_noise(params, state, action, embed, key):
    return jax.random.normal(key)

  model = fake_model(observe=observe_with_noise)
  actions = jnp.ones((3, 1))
  difference = lambda **options: (
    fake_agent(model, actions, **options)
    .act({}, fake_agent(model, actions).init(), IMAGE, jax.random.key(0), 0.0)[
      1
    ]
    .plan.score
  )
  # The same actions under two keys: the prior's samples differ, not the start.
  assert difference(sample_prior=True) != 0
  assert difference(sample_prior=False) == 0


def test_trap_1_and_12_returns_add_the_reward_after_each_action_undiscounted():
  model = fake_model(
    observe=lambda *_: jnp.array(10.0),
  )
  scores = []

  def planner(key, score_fn, *, warm):
    scores.append(score_fn(jnp.array([[1.0], [2.0], [3.0]]), key))
    return warm

  agent = make_agent(model, planner, empty_plan(3, 1, 1), sample_prior=False)
  agent.act({}, agent.init(), IMAGE, jax.random.key(0), 0.0)
  # States 11, 13, 16. With the reward before each action: 10 + 11 + 13; with a
  # discount of 0.99: less than 40.
  np.testing.assert_array_equal(scores, [40.0])


def test_trap_12_data_and_models_know_of_no_termination():
  assert Batch._fields == ("image", "action", "reward")
  parts = jax.eval_shape(small_planet().init, jax.random.key(0))
  assert set(parts) == {"mean_image", "encoder", "decoder", "reward", "cell"}


def test_trap_14_the_norm_is_reported_unclipped_and_nan_changes_nothing():
  # A gradient of (3000, 4000) * scale; its norm is 5000, clipped at 1000.
  def loss(params, batch, key):
    value = batch * (params["w"] * jnp.array([3000.0, 4000.0])).sum()
    return value, {"loss": value}

  model = fake_model(loss=loss)
  optimizer = optax.chain(optax.clip_by_global_norm(1000.0), optax.sgd(1.0))
  step = jax.jit(make_train_step(model, optimizer))
  state = init_state(jax.random.key(0), model, optimizer)
  state, metrics = step(state, jnp.float32(1), jax.random.key(1))
  np.testing.assert_allclose(metrics["grad_norm"], 5000.0)
  np.testing.assert_allclose(state.params["w"], [-600.0, -800.0], rtol=1e-6)
  for skipped in (1, 2):
    state, _ = step(state, jnp.float32(np.nan), jax.random.key(1))
    assert state.skipped == skipped
    np.testing.assert_allclose(state.params["w"], [-600.0, -800.0], rtol=1e-6)
  state, _ = step(state, jnp.float32(1), jax.random.key(1))
  assert (state.updates, state.skipped) == (4, 0)


def test_trap_15_an_episode_has_one_entry_more_than_decisions():
  assert [len(e.reward) for e in echo_episodes()] == [13, 13]


@pytest.mark.parametrize(
  "options, words",
  [
    (dict(overshooting_distance=10), "belong together"),
    (dict(overshooting_scale=1.0), "belong together"),
    (dict(kl="planets"), "'planet' or 'balanced'"),
  ],
)
def test_trap_16_settings_that_would_do_nothing_are_errors(options, words):
  with pytest.raises(ValueError, match=words):
    make_objective(**options)


def test_trap_16_an_overshooting_distance_beyond_the_chunk_is_an_error():
  model = small_planet(
    loss=dict(overshooting_scale=1.0, overshooting_distance=6)
  )
  params = init(model)
  with pytest.raises(ValueError, match="between 2 and the sequence length 5"):
    jax.eval_shape(model.loss, params, small_batch(), jax.random.key(1))


def test_trap_16_the_global_prior_is_the_kl_to_a_standard_normal():
  # The official code keeps the setting and crashes. 4 * 1 / 2 = 2 nats.
  ones = jnp.ones((1, 1, 4))
  metrics = objective(
    Gaussian(ones, ones), Gaussian(ones, ones), global_prior_scale=0.1
  )
  np.testing.assert_allclose(metrics["loss_global_prior"], 0.2, rtol=1e-6)
  assert metrics["loss_kl"] == 0


def test_imagining_equals_single_steps_of_the_prior():
  model = small_planet()
  params = init(model)
  actions = jnp.array([[0.3], [-0.7], [1.0]])
  states = imagine(model, params, model.initial(), actions)
  state = model.initial()
  for t, action in enumerate(actions):
    state = model.imagine(params, state, action, None)
    np.testing.assert_allclose(states.belief[t], state.belief, atol=1e-6)
