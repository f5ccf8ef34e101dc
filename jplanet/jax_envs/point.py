"""A point mass that is pushed to a goal."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jplanet.jax_envs import render
from jplanet.jax_envs.base import JaxEnv
from jplanet.types import Array, Key

FORCE = 0.04
FRICTION = 0.25
REWARD_WIDTH = 0.3
_EXTENT = 1.15
_FLOOR, _GOAL, _MASS = (0.2, 0.22, 0.3), (0.3, 0.75, 0.35), (0.95, 0.75, 0.2)


class PointState(NamedTuple):
  """Where the mass and its goal are.

  Attributes:
    position: `[2]` in [-1, 1], x rightwards, y upwards.
    velocity: `[2]`, per decision.
    goal: `[2]` in [-0.9, 0.9].
  """

  position: Array
  velocity: Array
  goal: Array


def point(size: int = 64, episode_length: int = 50) -> JaxEnv:
  """Builds a point mass in a walled square with a goal that is drawn in it.

  `velocity <- 0.75 velocity + 0.04 action`, so that crossing the square takes
  a dozen decisions; a wall stops what runs into it. With `d` the distance to
  the goal the reward is `1 / (1 + (d / 0.3)^2)`: smooth, 1 at the goal, and
  sloping everywhere. Start and goal are uniformly random.

  Args:
    size: image side in pixels.
    episode_length: decisions.
  """
  points = render.pixel_centres(size, _EXTENT)
  pixel = 2 * _EXTENT / size

  def reset(key: Key) -> PointState:
    start_key, goal_key = jax.random.split(key)
    return PointState(
      position=jax.random.uniform(start_key, (2,), minval=-0.9, maxval=0.9),
      velocity=jnp.zeros(2),
      goal=jax.random.uniform(goal_key, (2,), minval=-0.9, maxval=0.9),
    )

  def step(state: PointState, action: Array) -> tuple[PointState, Array]:
    push = FORCE * jnp.clip(action, -1, 1)
    velocity = (1 - FRICTION) * state.velocity + push
    free = state.position + velocity
    position = jnp.clip(free, -1, 1)
    velocity = jnp.where(position == free, velocity, 0.0)
    square = jnp.sum(jnp.square(position - state.goal))
    reward = 1 / (1 + square / REWARD_WIDTH**2)
    state = PointState(position=position, velocity=velocity, goal=state.goal)
    return state, reward

  def draw(state: PointState) -> Array:
    image = render.canvas(size, _FLOOR)
    goal = render.disc(points, state.goal, 0.16)
    image = render.paint(image, goal, _GOAL, pixel)
    mass = render.disc(points, state.position, 0.1)
    return render.to_uint8(render.paint(image, mass, _MASS, pixel))

  return JaxEnv(
    name="point",
    reset=reset,
    step=step,
    render=draw,
    action_dim=2,
    episode_length=episode_length,
  )
