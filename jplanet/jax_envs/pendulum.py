"""A pendulum that is too weak to be lifted and must be swung up."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jplanet.jax_envs import render
from jplanet.jax_envs.base import JaxEnv
from jplanet.types import Array, Key

GRAVITY = 10.0
TORQUE = 4.0
MAX_SPEED = 8.0
SUBSTEPS = 4
TIME_STEP = 0.025
_EXTENT = 1.3
_SKY, _ROD, _BOB = (0.85, 0.9, 0.95), (0.2, 0.3, 0.5), (0.85, 0.2, 0.15)


class PendulumState(NamedTuple):
  """Where the pendulum is.

  Attributes:
    angle: `[]` in radians, 0 upright, pi hanging; grows without bound.
    velocity: `[]` in radians per second.
  """

  angle: Array
  velocity: Array


def pendulum(size: int = 64, episode_length: int = 80) -> JaxEnv:
  """Builds the swing-up of a point mass on a rod of length 1.

  `angle'' = 10 sin(angle) + 4 action`: the torque holds the rod at most 24
  degrees away from hanging, so that it has to pump energy. A decision lasts
  0.1 s in four steps. The reward of each is its mean height,
  `(1 + cos(angle)) / 2`, from 0 hanging to 1 upright. The velocity is not in
  the picture.

  Args:
    size: image side in pixels.
    episode_length: decisions.
  """
  points = render.pixel_centres(size, _EXTENT)
  pixel = 2 * _EXTENT / size

  def reset(key: Key) -> PendulumState:
    noise = 0.05 * jax.random.normal(key, (2,))
    return PendulumState(angle=math.pi + noise[0], velocity=noise[1])

  def step(state: PendulumState, action: Array) -> tuple[PendulumState, Array]:
    torque = TORQUE * jnp.clip(action[0], -1, 1)

    def substep(state, _):
      # The new velocity moves the angle: the symplectic order, which neither
      # gains nor loses energy on its own.
      acceleration = GRAVITY * jnp.sin(state.angle) + torque
      velocity = state.velocity + TIME_STEP * acceleration
      velocity = jnp.clip(velocity, -MAX_SPEED, MAX_SPEED)
      angle = state.angle + TIME_STEP * velocity
      reward = (1 + jnp.cos(angle)) / 2
      return PendulumState(angle=angle, velocity=velocity), reward

    state, rewards = jax.lax.scan(
      substep, state, None, length=SUBSTEPS, unroll=SUBSTEPS
    )
    return state, rewards.mean()

  def draw(state: PendulumState) -> Array:
    tip = jnp.stack([jnp.sin(state.angle), jnp.cos(state.angle)])
    image = render.canvas(size, _SKY)
    rod = render.capsule(points, jnp.zeros(2), tip, 0.07)
    image = render.paint(image, rod, _ROD, pixel)
    image = render.paint(image, render.disc(points, tip, 0.2), _BOB, pixel)
    return render.to_uint8(image)

  return JaxEnv(
    name="pendulum",
    reset=reset,
    step=step,
    render=draw,
    action_dim=1,
    episode_length=episode_length,
  )
