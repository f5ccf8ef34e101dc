"""PlaNet's world model: a latent cell, an encoder, a decoder and a reward head.

      image --> encoder --> cell.observe --> features --> decoder --> image
      action --------------^     |                  \\--> reward head
                                 +--> KL(posterior || prior)

`make_planet` is the border where a configuration is unpacked; everything it
calls takes plain numbers.
"""

import functools
import math
from collections.abc import Mapping

import jax
import jax.numpy as jnp

from jlejepa.dots import resolve
from jplanet import gaussian, losses
from jplanet.cells import Cell
from jplanet.checked import checked
from jplanet.chunked import computed_once, mean_loss
from jplanet.drnn import make_drnn
from jplanet.image_networks import make_image_networks
from jplanet.networks import MLP, ready_for
from jplanet.preprocess import postprocess, preprocess
from jplanet.rssm import make_rssm
from jplanet.ssm import make_ssm
from jplanet.types import Array, Batch, Key, Params, State, WorldModel

UNIT_GAUSSIAN_NATS = 0.5 * math.log(2 * math.pi)


def make_planet(
  config: Mapping, *, action_dim: int, image_size: int | None = None
) -> WorldModel:
  """Makes PlaNet's world model (Section 3, Appendix A; version C by default).

  Args:
    config: with `model`, `loss` and `env.size`, as in `configs/planet.py`.
    action_dim: `A`.
    image_size: `S`, the side of the square images; `config.env.size` if None.

  Returns:
    A `WorldModel`, whose functions refuse wrong shapes and types (`checked`).

  Raises:
    ValueError: for a kind, size or loss that does not exist.
  """
  model, loss = config["model"], config["loss"]
  size = config["env"]["size"] if image_size is None else image_size
  plan_dot = resolve(model["plan_dot"])
  encoder, decoder, arrange, restore = make_image_networks(
    model["encoder"], size, model["depth"], model["image_dtype"]
  )
  head = lambda dot: MLP(
    model["reward_layers"],
    model["reward_units"],
    1,
    dot,
    zero_output=model["reward_zero_init"],
  )
  shape = (size, size, 3)
  reward_head, fast_reward_head = head("float32"), head(plan_dot)
  embed_size = jax.eval_shape(
    lambda k: encoder.init_with_output(k, arrange(jnp.zeros(shape)))[0],
    jax.random.key(0),
  ).size
  # Both have the same parameters: only planning may take faster products.
  cell = make_cell(model, embed_size, action_dim, dot="float32")
  plan_cell = make_cell(model, embed_size, action_dim, dot=plan_dot)
  objective = losses.make_objective(**loss)

  def init(key: Key, images: Array | None = None) -> Params:
    keys = dict(
      zip(["encoder", "decoder", "reward", "cell"], jax.random.split(key, 4))
    )
    features, mean = cell.features(cell.initial()), jnp.zeros(shape)
    if model["center"] and images is not None:
      to_float = lambda image: dithered(arrange(image))
      mean = restore(jax.vmap(to_float)(images).mean(0))
    return {
      "mean_image": mean,
      "encoder": encoder.init(keys["encoder"], arrange(mean)),
      "decoder": decoder.init(keys["decoder"], features),
      "reward": reward_head.init(keys["reward"], features),
      "cell": cell.init(keys["cell"]),
    }

  def dithered(arranged: Array, key: Key | None = None) -> Array:
    key = key if model["dither"] else None
    return preprocess(arranged, key, bits=model["bits"])

  def mean_image(params: Params) -> Array:
    return arrange(jax.lax.stop_gradient(params["mean_image"]))

  def centred(params: Params, arranged: Array, key: Key) -> Array:
    return dithered(arranged, key) - mean_image(params)

  def encode(params: Params, image: Array, key: Key) -> Array:
    x = centred(params, arrange(image), key)
    return encoder.apply(params["encoder"], x)

  def observe(params, state, action, embed, key) -> State:
    return cell.posterior(params["cell"], state, action, embed, key)

  def imagine(params, state, action, key) -> State:
    return plan_cell.prior(params["cell"], state, action, key)

  def reward(params: Params, state: State) -> Array:
    return fast_reward_head.apply(params["reward"], cell.features(state))[0]

  def prepare(params: Params) -> Params:
    return params | {
      "cell": plan_cell.prepare(params["cell"]),
      "reward": ready_for(plan_dot, params["reward"]),
    }

  def decode(params: Params, state: State) -> Array:
    mean = decoder.apply(params["decoder"], cell.features(state))
    mean = mean + mean_image(params)
    return jnp.clip(postprocess(restore(mean), bits=model["bits"]), 0, 1)

  def image_nll(params: Params, features: Array, images: Array) -> Array:
    decoded = decoder.apply(params, features)
    # The constant stays out of the sum over pixels: with it inside, XLA's CPU
    # backend takes ten times as long.
    square = 0.5 * jnp.square(images - decoded).sum(
      tuple(range(2, images.ndim))
    )
    return square.mean() + images[0, 0].size * UNIT_GAUSSIAN_NATS

  def loss_fn(params: Params, batch: Batch, key: Key):
    dither_key, sample_key, overshoot_key = jax.random.split(key, 3)
    image_keys = jax.random.split(dither_key, batch.image.shape[:2])
    images = computed_once(jax.vmap(jax.vmap(arrange)), batch.image)
    center = functools.partial(centred, params)
    images = computed_once(jax.vmap(jax.vmap(center)), images, image_keys)
    embeds = encoder.apply(params["encoder"], images)
    posteriors, priors = jax.vmap(
      lambda e, a, k: cell.observe(params["cell"], e, a, k)
    )(embeds, batch.action, jax.random.split(sample_key, len(embeds)))
    features = jax.vmap(jax.vmap(cell.features))(posteriors)
    prior = functools.partial(cell.prior, cell.prepare(params["cell"]))
    rewards = reward_head.apply(params["reward"], features)[..., 0]
    reward_nll = -gaussian.log_prob(batch.reward, rewards)
    return objective(
      image_nll=mean_loss(image_nll, params["decoder"], features, images),
      reward_nll=reward_nll,
      posteriors=cell.gaussian(posteriors),
      priors=priors,
      overshoot=losses.Overshoot(
        prior=prior,
        gaussian=cell.gaussian,
        initial=cell.initial(),
        states=posteriors,
        actions=batch.action,
        key=overshoot_key,
      ),
    )

  return checked(
    WorldModel(
      init=init,
      initial=cell.initial,
      encode=encode,
      observe=observe,
      imagine=imagine,
      reward=reward,
      decode=decode,
      features=cell.features,
      loss=loss_fn,
      prepare=prepare,
    ),
    action_dim=action_dim,
    image_size=size,
  )


def make_cell(model: Mapping, embed: int, action: int, *, dot: str) -> Cell:
  """Makes the latent cell that `model.kind` names; `dot` is for its prior.

  Raises:
    ValueError: for an unknown kind.
  """
  common = dict(
    embed=embed,
    action=action,
    state=model["state"],
    hidden=model["hidden"],
    min_std=model["min_std"],
    mean_only=model["mean_only"],
    fast_dot=dot,
  )
  if model["kind"] == "rssm":
    return make_rssm(
      **common,
      belief=model["belief"],
      gru=model["gru"],
      belief_only=model["belief_only"],
    )
  if model["kind"] == "ssm":
    return make_ssm(**common)
  if model["kind"] == "drnn":
    return make_drnn(**common, belief=model["belief"], gru=model["gru"])
  raise ValueError(
    f"unknown model.kind {model['kind']!r}: expected 'rssm', 'ssm' or 'drnn'"
  )
