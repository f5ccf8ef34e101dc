"""Numbers that anybody can recompute: sizes, weights, constants of the paper.

The divergences are in `test_gaussian.py`, the pixels in `test_preprocess.py`,
Adam's first steps in `test_optimizer.py`, the official overshooting example in
`test_overshooting.py`, the refit of the planner in `test_planners.py`.
"""

import importlib.util
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jplanet
from jplanet.cells import GaussianHead, ResetAfterGRU, ResetBeforeGRU
from jplanet.image_networks import ConvDecoder, ConvEncoder
from jplanet.networks import MLP, count_weights
from jplanet.replay import Episode, Replay
from jplanet.rssm import make_rssm

ENCODER, DECODER, REWARD, RSSM = 690_144, 3_795_555, 250_201, 557_320
CONFIGS = pathlib.Path(__file__).parents[2] / "configs"


def paper_config():
  """The configuration of the paper, from the repository's own file."""
  spec = importlib.util.spec_from_file_location("c", CONFIGS / "planet.py")
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module.get_config("cartpole_swingup")


def shapes_of(init, *args):
  """Shapes of parameters, without making them."""
  return jax.eval_shape(init, jax.random.key(0), *args)


def sizes_inside(module, x):
  """Spatial sizes of the outputs of a network's convolutions, in order."""

  def run(x):
    _, kept = module.init_with_output(
      jax.random.key(0), x, capture_intermediates=True,
      mutable=["params", "intermediates"],
    )  # fmt: skip
    return kept["intermediates"]

  outputs = jax.eval_shape(run, x)
  convs = sorted(name for name in outputs if name.startswith("Conv"))
  return [outputs[name]["__call__"][0].shape for name in convs]


def test_encoder_shapes_and_weights():
  assert sizes_inside(ConvEncoder(), jnp.zeros((64, 64, 3))) == [
    (31, 31, 32), (14, 14, 64), (6, 6, 128), (2, 2, 256),
  ]  # fmt: skip
  # Kernels of 4x4: in * out * 16 + out, summed over the four layers.
  by_hand = sum(i * o * 16 + o for i, o in [(3, 32), (32, 64), (64, 128)])
  assert by_hand + 128 * 256 * 16 + 256 == ENCODER
  params = shapes_of(ConvEncoder().init, jnp.zeros((64, 64, 3)))
  assert count_weights(params) == ENCODER
  embed = jax.eval_shape(
    ConvEncoder().apply, params, jax.ShapeDtypeStruct((64, 64, 3), jnp.float32)
  )
  assert embed.shape == (1024,)


def test_decoder_shapes_and_weights():
  assert sizes_inside(ConvDecoder(), jnp.zeros(230)) == [
    (5, 5, 128), (13, 13, 64), (30, 30, 32), (64, 64, 3),
  ]  # fmt: skip
  layers = [(1024, 128, 5), (128, 64, 5), (64, 32, 6), (32, 3, 6)]
  by_hand = 230 * 1024 + 1024 + sum(i * o * k * k + o for i, o, k in layers)
  assert by_hand == DECODER
  assert count_weights(shapes_of(ConvDecoder().init, jnp.zeros(230))) == DECODER


def test_reward_head_weights():
  by_hand = 230 * 300 + 300 + 2 * (300 * 300 + 300) + 300 + 1
  assert by_hand == REWARD
  head = MLP(layers=3, units=300, outputs=1)
  assert count_weights(shapes_of(head.init, jnp.zeros(230))) == REWARD


def test_rssm_weights():
  # s, a -> 200; GRU; h -> 200 and h, e -> 200, each with two layers of 30.
  heads = 2 * (200 * 30 + 30)
  gru = 3 * (400 * 200 + 200)
  by_hand = 36 * 200 + 200 + gru + (200 * 200 + 200 + heads)
  by_hand += 1224 * 200 + 200 + heads
  assert by_hand == RSSM
  cell = make_rssm(embed=1024, action=6)
  assert count_weights(shapes_of(cell.init)) == RSSM


@pytest.mark.parametrize(
  "action, total", [(1, 5_292_220), (2, 5_292_420), (6, 5_293_220)]
)
def test_the_papers_model_has_as_many_weights(action, total):
  model = jplanet.make_planet(paper_config(), action_dim=action)
  params = dict(shapes_of(model.init))
  # A constant of centred models (zero here), which nothing trains.
  assert params.pop("mean_image").shape == (64, 64, 3)
  assert count_weights(params) == total
  assert total == ENCODER + DECODER + REWARD + RSSM - 200 * (6 - action)


def test_the_papers_constants_are_those_of_its_appendix():
  config = paper_config()
  planner, train, loss = config.planner, config.train, config.loss
  cem = planner.cem
  assert (planner.name, planner.horizon, cem.iterations) == ("cem", 12, 10)
  assert (cem.candidates, cem.elites) == (1000, 100)
  assert (train.batch, train.chunk, train.seed_episodes) == (50, 50, 5)
  assert (train.updates_per_collect, train.noise) == (100, 0.3)
  assert (loss.free_nats, loss.reward_scale, loss.kl_scale) == (3, 10, 1)
  assert loss.overshooting_scale == loss.global_prior_scale == 0
  optimizer = config.optimizer
  assert (optimizer.learning_rate, optimizer.eps) == (1e-3, 1e-4)
  assert (optimizer.eps_form, optimizer.clip_norm) == ("tf1", 1000)
  assert (config.model.bits, config.env.size) == (5, 64)
  assert not planner.warm_start and planner.sample_prior


def test_gru_scalar_step():
  # x = .5, h = .2, all weights .1: r = u = sigmoid(.07 + 1) = .7445969158,
  # c = tanh(.05 + .1 * r * .2) = .0648010056, h' = u * .2 + (1 - u) * c.
  gru = ResetBeforeGRU(1)
  x, h = jnp.array([0.5]), jnp.array([0.2])
  params = gru.init(jax.random.key(0), x, h)
  fill = lambda path, leaf: (
    jnp.full_like(leaf, 0.1) if path[-1].key == "kernel" else leaf
  )
  params = jax.tree_util.tree_map_with_path(fill, params)
  np.testing.assert_array_equal(params["params"]["gates"]["bias"], 1)
  np.testing.assert_allclose(gru.apply(params, x, h), [0.16546976], rtol=1e-6)


def test_gru_gates_follow_their_order_and_their_side_of_the_product():
  # Reset after the product would put r outside of the candidate's weight on h.
  rng = np.random.default_rng(0)
  x, h = rng.normal(size=3), rng.normal(size=2)
  gru = ResetBeforeGRU(2)
  shapes = shapes_of(gru.init, jnp.zeros(3), jnp.zeros(2))
  params = jax.tree.map(lambda s: jnp.float32(rng.normal(size=s.shape)), shapes)
  p = jax.tree.map(np.float64, params["params"])
  sigmoid = lambda x: 1 / (1 + np.exp(-x))
  gates = np.concatenate([x, h]) @ p["gates"]["kernel"] + p["gates"]["bias"]
  r, u = sigmoid(gates[:2]), sigmoid(gates[2:])
  c = p["candidate"]
  c = np.tanh(np.concatenate([x, r * h]) @ c["kernel"] + c["bias"])
  expected = u * h + (1 - u) * c
  result = gru.apply(params, jnp.float32(x), jnp.float32(h))
  np.testing.assert_allclose(result, expected, rtol=1e-5)


def test_fast_gru_with_zero_weights_mostly_remembers():
  # Update = sigmoid(0 - 1) = .26894: h' = .26894 * tanh(0) + .73106 * h.
  gru = ResetAfterGRU(1)
  x, h = jnp.array([0.5]), jnp.array([0.2])
  params = jax.tree.map(jnp.zeros_like, gru.init(jax.random.key(0), x, h))
  result = gru.apply(params, x, h)
  np.testing.assert_allclose(result, [0.2 * 0.7310586], rtol=1e-6)


def test_a_fresh_gaussian_head_has_std_softplus_of_zero_plus_a_tenth():
  head = GaussianHead(30)
  params = head.init(jax.random.key(0), jnp.zeros(200))
  mean, std = head.apply(params, jnp.zeros(200))
  np.testing.assert_array_equal(mean, 0)
  np.testing.assert_allclose(std, np.full(30, 0.79314718), rtol=1e-6)


def test_chunks_of_50_start_at_each_of_the_77_offsets_of_126_entries():
  replay = Replay((8, 8, 3), 1)
  step = np.arange(126, dtype=np.float32)
  images = np.zeros((126, 8, 8, 3), np.uint8)
  replay.add(Episode(images, step[:, None], step))
  chunks = replay.sample(np.random.default_rng(0), 2000, 50)
  starts = chunks.reward[:, 0]
  assert set(starts) == set(range(77))
  np.testing.assert_array_equal(
    chunks.reward - starts[:, None], [step[:50]] * 2000
  )
  np.testing.assert_array_equal(chunks.action[..., 0], chunks.reward)
  with pytest.raises(ValueError, match=r"chunk of 127 .* 126"):
    replay.sample(np.random.default_rng(0), 1, 127)
