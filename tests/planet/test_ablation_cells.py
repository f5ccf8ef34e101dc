"""The SSM and the DRNN against plain numpy, wire by wire."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jplanet.drnn import make_drnn
from jplanet.networks import count_weights
from jplanet.ssm import make_ssm
from jplanet.world_model import make_planet

SIZES = dict(embed=7, action=2, state=3, hidden=16)
MAKERS = {
  "ssm": lambda **kw: make_ssm(**{**SIZES, **kw}),
  "drnn": lambda **kw: make_drnn(**{**SIZES, "belief": 4, **kw}),
}
both = pytest.mark.parametrize("kind", list(MAKERS))


def setup(kind, seed=0, steps=6, **options):
  """A cell, parameters with random biases too, embeddings and actions."""
  cell = MAKERS[kind](**options)
  shapes = jax.eval_shape(cell.init, jax.random.key(seed))
  leaves, tree = jax.tree.flatten(shapes)
  rng = np.random.default_rng(seed)
  leaves = [jnp.float32(rng.normal(0, 0.4, x.shape)) for x in leaves]
  embeds = jnp.float32(rng.normal(size=(steps, 7)))
  actions = jnp.float32(rng.normal(size=(steps, 2)))
  return cell, jax.tree.unflatten(tree, leaves), embeds, actions


def sigmoid(x):
  return 1 / (1 + np.exp(-x))


def joint(p, x):
  return np.maximum(x @ p["kernel"] + p["bias"], 0)


def dense(p, x):
  return x @ p["dense"]["kernel"] + p["dense"]["bias"]


def head(p, x):
  mean, std = (x @ p[name]["kernel"] + p[name]["bias"] for name in p)
  return mean, np.log1p(np.exp(std)) + 0.1


def gru(p, x, h):
  """GRUBlockCell: the reset gate acts before the product."""
  gates = np.concatenate([x, h]) @ p["gates"]["kernel"] + p["gates"]["bias"]
  r, u = np.split(sigmoid(gates), 2)
  c = np.concatenate([x, r * h]) @ p["candidate"]["kernel"]
  c = np.tanh(c + p["candidate"]["bias"])
  return u * h + (1 - u) * c


def ssm_step(p, state, action, embed):
  """Returns the prior's and the posterior's (mean, std)."""
  prior = head(
    p["prior_head"],
    joint(p["prior_hidden"], np.concatenate([state["sample"], action])),
  )
  hidden = joint(p["posterior_hidden"], np.concatenate([*prior, embed]))
  return prior, head(p["posterior_head"], hidden)


def drnn_infer(p, state, action, embed):
  encoder = gru(
    p["encoder"],
    np.concatenate([embed, action, state["sample"]]),
    state["encoder"],
  )
  inputs = np.concatenate([encoder, state["sample"], state["decoder"]])
  hidden = np.maximum(dense(p["hidden_layer"], inputs), 0)
  return head(p["head"], hidden), encoder


def test_ssm_filters_as_plain_numpy_does():
  cell, params, embeds, actions = setup("ssm")
  posteriors, priors = jax.jit(cell.observe)(
    params, embeds, actions, jax.random.key(1)
  )
  p = jax.tree.map(np.asarray, params["params"])
  state = {"sample": np.zeros(3)}
  for t in range(len(actions)):
    prior, posterior = ssm_step(p, state, actions[t], embeds[t])
    np.testing.assert_allclose(priors.mean[t], prior[0], atol=1e-5)
    np.testing.assert_allclose(priors.std[t], prior[1], atol=1e-5)
    np.testing.assert_allclose(posteriors.mean[t], posterior[0], atol=1e-5)
    np.testing.assert_allclose(posteriors.std[t], posterior[1], atol=1e-5)
    # The next step starts from the sample that was drawn.
    state = {"sample": np.asarray(posteriors.sample[t])}


def test_drnn_filters_as_plain_numpy_does():
  cell, params, embeds, actions = setup("drnn")
  posteriors, priors = jax.jit(cell.observe)(
    params, embeds, actions, jax.random.key(1)
  )
  p = jax.tree.map(np.asarray, params["params"])
  state = {
    "sample": np.zeros(3),
    "encoder": np.zeros(4),
    "decoder": np.zeros(4),
  }
  for t in range(len(actions)):
    prior, _ = drnn_infer(p, state, actions[t], np.zeros(7))
    posterior, encoder = drnn_infer(p, state, actions[t], embeds[t])
    sample = np.asarray(posteriors.sample[t])
    decoder = gru(p["decoder"], sample, state["decoder"])
    np.testing.assert_allclose(priors.mean[t], prior[0], atol=1e-5)
    np.testing.assert_allclose(priors.std[t], prior[1], atol=1e-5)
    np.testing.assert_allclose(posteriors.mean[t], posterior[0], atol=1e-5)
    np.testing.assert_allclose(posteriors.std[t], posterior[1], atol=1e-5)
    np.testing.assert_allclose(posteriors.encoder[t], encoder, atol=1e-5)
    np.testing.assert_allclose(posteriors.decoder[t], decoder, atol=1e-5)
    state = {"sample": sample, "encoder": encoder, "decoder": decoder}


@both
def test_samples_are_mean_plus_std_times_standard_noise(kind):
  cell, params, embeds, actions = setup(kind, steps=400)
  posteriors, _ = cell.observe(params, embeds, actions, jax.random.key(2))
  noise = (posteriors.sample - posteriors.mean) / posteriors.std
  # 1,200 draws: standard errors 0.029 and 0.020.
  assert abs(noise.mean()) < 0.15 and abs(noise.std() - 1) < 0.1
  assert len(np.unique(noise)) > 1000


@both
def test_observe_equals_a_loop_of_posterior_steps(kind):
  cell, params, embeds, actions = setup(kind, mean_only=True)
  posteriors, priors = cell.observe(params, embeds, actions, jax.random.key(3))
  state = cell.initial()
  for t in range(len(actions)):
    prior = cell.gaussian(cell.prior(params, state, actions[t], None))
    np.testing.assert_allclose(priors.mean[t], prior.mean, atol=1e-5)
    np.testing.assert_allclose(priors.std[t], prior.std, atol=1e-5)
    state = cell.posterior(params, state, actions[t], embeds[t], None)
    for field, value in state._asdict().items():
      got = getattr(posteriors, field)[t]
      np.testing.assert_allclose(got, value, atol=1e-5, err_msg=field)


@both
def test_without_a_key_or_with_mean_only_the_sample_is_the_mean(kind):
  key = jax.random.key(4)
  for options, k in (({}, None), ({"mean_only": True}, key)):
    cell, params, embeds, actions = setup(kind, **options)
    prior = cell.prior(params, cell.initial(), actions[0], k)
    after = cell.posterior(params, cell.initial(), actions[0], embeds[0], k)
    for state in (prior, after):
      np.testing.assert_array_equal(state.sample, state.mean)
  cell, params, _, actions = setup(kind)
  state = cell.prior(params, cell.initial(), actions[0], key)
  assert (state.sample != state.mean).all()


def test_drnn_prior_is_its_posterior_of_an_empty_embedding():
  cell, params, _, actions = setup("drnn")
  state, key = cell.initial(), jax.random.key(5)
  prior = cell.prior(params, state, actions[0], key)
  posterior = cell.posterior(params, state, actions[0], jnp.zeros(7), key)
  for a, b in zip(prior, posterior):
    np.testing.assert_allclose(a, b, rtol=1e-6)


def test_ssm_remembers_through_its_sample_alone():
  cell, params, _, actions = setup("ssm")
  state = cell.initial()._replace(sample=jnp.ones(3))
  other = state._replace(mean=jnp.full(3, 9.0), std=jnp.full(3, 9.0))
  moved = state._replace(sample=-jnp.ones(3))
  step = lambda s: cell.prior(params, s, actions[0], None).mean
  np.testing.assert_array_equal(step(state), step(other))
  assert (step(state) != step(moved)).any()


@both
def test_heads_see_what_the_paper_gives_them(kind):
  cell, params, embeds, actions = setup(kind)
  state = cell.posterior(
    params, cell.initial(), actions[0], embeds[0], jax.random.key(6)
  )
  expected = state.sample if kind == "ssm" else state.decoder
  np.testing.assert_array_equal(cell.features(state), expected)


@both
def test_initial_state_is_zero(kind):
  for leaf in jax.tree.leaves(MAKERS[kind]().initial()):
    np.testing.assert_array_equal(leaf, 0)


@both
def test_vmap_over_sequences_equals_a_loop(kind):
  cell, params, embeds, actions = setup(kind)
  batch = (jnp.stack([embeds, -embeds]), jnp.stack([actions, 2 * actions]))
  keys = jax.random.split(jax.random.key(7), 2)
  observe = lambda e, a, k: cell.observe(params, e, a, k)
  batched = jax.vmap(observe)(*batch, keys)
  for i in range(2):
    alone = observe(batch[0][i], batch[1][i], keys[i])
    for a, b in zip(jax.tree.leaves(alone), jax.tree.leaves(batched)):
      np.testing.assert_allclose(a, b[i], atol=1e-5)


@both
def test_fast_products_change_the_prior_step_alone_and_little(kind):
  cell, params, embeds, actions = setup(kind)
  fast = MAKERS[kind](fast_dot="bfloat16")
  args = (params, cell.initial(), actions[0])
  exact, rough = cell.prior(*args, None), fast.prior(*args, None)
  assert rough.mean.dtype == jnp.float32
  assert (exact.mean != rough.mean).any()
  np.testing.assert_allclose(exact.mean, rough.mean, atol=0.05)
  np.testing.assert_array_equal(
    cell.posterior(*args, embeds[0], None).mean,
    fast.posterior(*args, embeds[0], None).mean,
  )


@pytest.mark.parametrize("action", [1, 2, 6])
def test_ssm_has_the_weights_of_its_layers(action):
  # in * out + out of every layer: s, a -> 200 and mean, std, e -> 200, each
  # followed by two layers of 30.
  heads = 2 * (200 * 30 + 30)
  prior = (30 + action) * 200 + 200 + heads
  posterior = (60 + 1024) * 200 + 200 + heads
  cell = make_ssm(embed=1024, action=action)
  params = jax.eval_shape(cell.init, jax.random.key(0))
  assert count_weights(params) == prior + posterior


@pytest.mark.parametrize("action", [1, 2, 6])
def test_drnn_has_the_weights_of_its_layers(action):
  # A GRU of size n on m inputs: three blocks of (m + n) * n + n.
  gru_weights = lambda m: 3 * ((m + 200) * 200 + 200)
  encoder = gru_weights(1024 + action + 30)
  hidden = (200 + 30 + 200) * 200 + 200
  heads = 2 * (200 * 30 + 30)
  expected = encoder + hidden + heads + gru_weights(30)
  cell = make_drnn(embed=1024, action=action)
  params = jax.eval_shape(cell.init, jax.random.key(0))
  assert count_weights(params) == expected


@pytest.mark.parametrize("kind", ["rssm", "drnn"])
@pytest.mark.parametrize("gru", ["reset_before", "reset_after"])
def test_the_configuration_chooses_the_gru(tiny_config, kind, gru):
  config = tiny_config(f"model.kind={kind}", f"model.gru={gru}")
  model = make_planet(config, action_dim=1)
  shapes = jax.eval_shape(model.init, jax.random.key(0))
  paths = [
    jax.tree_util.keystr(p) for p, _ in jax.tree.leaves_with_path(shapes)
  ]
  # Only the reset before the product needs a second product.
  assert any("candidate" in path for path in paths) is (gru == "reset_before")
