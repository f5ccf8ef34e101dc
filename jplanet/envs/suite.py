"""Control-suite tasks as environments that give pixels."""

import contextlib
import importlib.metadata
import os
import sys
import warnings
from typing import Any

import dm_env
import numpy as np
from absl import logging
from dm_env import specs

from jplanet.envs import renderers
from jplanet.envs.actions import ActionScale
from jplanet.envs.tasks import find_task

# Where no display is, its reset leaves MuJoCo unable to use OpenGL at all: the
# process aborts at the next picture.
_OWN_OPENGL = ("quadruped", "escape")
_STEPS = 1000  # Every task of the suite lasts 1000 control steps.


def make_env(
  task: str,
  *,
  action_repeat: int | None = None,
  size: int = 64,
  renderer: str = "auto",
  camera: int = 0,
  supersample: int | None = None,
  seed: int = 0,
) -> "SuiteEnv":
  """Builds a control-suite task that is seen through a camera.

  Args:
    task: a name in `TASKS`, or `<domain>_<task>` for any task of the suite.
    action_repeat: control steps per decision; None takes the task's own.
    size: image side in pixels.
    renderer: "ray" (ray casting, no OpenGL), "gl" (MuJoCo's own), or "auto",
      which is "gl" where a GPU renders and "ray" elsewhere.
    camera: index of a camera of the task; -1 is the free camera.
    supersample: rays per pixel along each axis, for "ray" only. None takes 2
      below 64 pixels and 1 from there on.
    seed: of the first episode; see `SuiteEnv.seed`.

  Returns:
    A `dm_env.Environment` whose observations are uint8 `[size, size, 3]` and
    whose actions are float32 `[A]` in [-1, 1].

  Raises:
    ValueError: the task is unknown or an option is out of range.
    RuntimeError: "gl" was asked for and no OpenGL works here.
    ImportError: dm_control or a fitting MuJoCo is missing.
  """
  for name, value in (("size", size), ("action_repeat", action_repeat)):
    if value is not None and (value != int(value) or value < 1):
      raise ValueError(f"{name} must be a positive integer, got {value!r}")
  # First, because a missing OpenGL must be reported before anything starts.
  renderer = renderers.choose(renderer)
  suite = load_suite()
  found = find_task(task, suite.ALL_TASKS)
  if found[:2] == _OWN_OPENGL:
    raise ValueError(
      f"{task} cannot be played here: it sends its terrain to an OpenGL of "
      "dm_control's own at every reset; choose another task"
    )
  with _quiet():
    env = suite.load(found.domain, found.task, task_kwargs={"random": seed})
  model = env.physics.model
  if not -1 <= camera < model.ncam:
    raise ValueError(
      f"camera must lie in [-1, {model.ncam - 1}] for {task}, got {camera!r}"
    )
  draw = renderers.build(
    renderer, env.physics, size=size, camera=camera, supersample=supersample
  )
  return SuiteEnv(env, draw, action_repeat or found.action_repeat)


def load_suite() -> Any:
  """Imports `dm_control.suite`.

  Raises:
    ImportError: dm_control or MuJoCo is missing or does not fit, with the
      command that mends it.
  """
  mend = "pip install 'jplanet[env]'"
  if sys.version_info >= (3, 13):
    mend += " && pip install --no-deps 'dm_control>=1.0.50'"
  try:
    version = importlib.metadata.version("mujoco")
  except importlib.metadata.PackageNotFoundError:
    raise ImportError(f"mujoco is not installed: run {mend}") from None
  if int(version.split(".")[0]) >= 4:
    raise ImportError(
      f"mujoco {version} does not work with dm_control: "
      "run pip install 'mujoco>=3.17,<4'"
    )
  try:
    with warnings.catch_warnings():
      # Without a display it warns of one that nobody asked for.
      warnings.simplefilter("ignore")
      from dm_control import suite
  except ModuleNotFoundError as error:
    raise ImportError(f"{error.name} is not installed: run {mend}") from None
  except (AttributeError, ImportError, RuntimeError) as error:
    # dm_control loads what MUJOCO_GL names when it is imported, wanted or not.
    raise ImportError(
      f"MUJOCO_GL={os.environ.get('MUJOCO_GL')!r} names an OpenGL that does "
      f"not load ({error}): unset it, or set it to 'disable' and use "
      "renderer='ray'"
    ) from None
  return suite


class SuiteEnv(dm_env.Environment):
  """A control-suite task with an action repeat and pixels.

  One decision repeats its action, sums the rewards and renders once, after the
  repeat. An episode lasts `ceil(1000 / action_repeat)` decisions and ends with
  discount 1: a time limit is no termination. An action outside [-1, 1] is
  clipped.

  Attributes:
    renderer: "ray", "gl:egl" or "gl:osmesa", to be kept next to every score.
    action_repeat: control steps per decision.
    physics_errors: episodes so far that a diverging simulation cut short. Such
      an episode ends as if time were up, on its last good image.
    physics: the simulation of dm_control.
  """

  def __init__(self, env: Any, renderer: Any, action_repeat: int):
    self.renderer = renderer.name
    self.action_repeat = action_repeat
    self.physics_errors = 0
    self.physics = env.physics
    self._task = env.task
    self._draw = renderer
    self._substeps = round(env.control_timestep() / env.physics.timestep())
    # All but a few tasks have [-1, 1] already; the others are rescaled.
    bounds = env.action_spec()
    self._scale = ActionScale(bounds.minimum, bounds.maximum)
    self._steps = None  # None until an episode runs.
    self._image = None

  def seed(self, seed: int) -> None:
    """Makes the next `reset` a function of `seed` alone."""
    self._task.random.seed(seed)

  def reset(self) -> dm_env.TimeStep:
    """Starts an episode."""
    with self.physics.reset_context():
      self._task.initialize_episode(self.physics)
    self._steps = 0
    self._image = self._draw.render()
    return dm_env.restart(self._image)

  def step(self, action: Any) -> dm_env.TimeStep:
    """Takes one decision, or resets where no episode runs.

    Args:
      action: `[A]` in [-1, 1].

    Raises:
      ValueError: the action has another shape or is not finite.
    """
    if self._steps is None:
      return self.reset()
    action = self._scale(action)
    reward, discount = 0.0, None
    try:
      for _ in range(self.action_repeat):
        # What the suite's own `step` does, without its observations.
        self._task.before_step(action, self.physics)
        self.physics.step(self._substeps)
        self._task.after_step(self.physics)
        reward += float(self._task.get_reward(self.physics))
        self._steps += 1
        if self._steps >= _STEPS:
          discount = 1.0
        else:
          discount = self._task.get_termination(self.physics)
        if discount is not None:
          break
      if not np.isfinite(reward):
        raise FloatingPointError("the reward is not finite")
      self._image = self._draw.render()
    except (FloatingPointError, *_physics_errors()):
      self.physics_errors += 1
      reward = reward if np.isfinite(reward) else 0.0
      discount = 1.0
    if discount is None:
      return dm_env.transition(reward, self._image)
    self._steps = None
    return dm_env.TimeStep(
      dm_env.StepType.LAST, reward, float(discount), self._image
    )

  def observation_spec(self) -> specs.BoundedArray:
    """Describes the pixels, uint8 `[S, S, 3]`."""
    shape = (self._draw.size, self._draw.size, 3)
    return specs.BoundedArray(shape, np.uint8, 0, 255, "pixels")

  def action_spec(self) -> specs.BoundedArray:
    """Describes the actions, float32 `[A]` in [-1, 1]."""
    return self._scale.spec()

  def state(self) -> dict[str, np.ndarray]:
    """Returns the suite's own observations, float64 `[n]` each.

    They are for diagnostics; the agent sees pixels alone.
    """
    observation = self._task.get_observation(self.physics)
    return {
      name: np.array(value, np.float64).reshape(-1)
      for name, value in observation.items()
    }

  def close(self) -> None:
    """Frees the renderer and the simulation."""
    self._draw.close()
    self.physics.free()


@contextlib.contextmanager
def _quiet():
  # MuJoCo warns of deprecated words in the suite's own model files.
  verbosity = logging.get_verbosity()
  logging.set_verbosity(logging.ERROR)
  try:
    yield
  finally:
    logging.set_verbosity(verbosity)


def _physics_errors():
  from dm_control.rl.control import PhysicsError

  return (PhysicsError,)
