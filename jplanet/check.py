"""The rules that a configuration of PlaNet keeps, checked before any work."""

from ml_collections import ConfigDict

from jlejepa.runtime.config import flatten, validate
from jlejepa.runtime.errors import (
  UserError,
  any_value,
  finite_nonnegative,
  finite_positive,
  fraction,
  nonnegative_int,
  one_of,
  positive_int,
  require,
)
from jplanet.planning import PLANNERS, check_planner, default_constants
from jplanet.world_model import make_planet

# The product of a few sizes must stay below 2**63, where XLA ends the process.
LARGEST_SIZE = 10**6
MOST_UPDATES = 1000  # a decision
_COUNTS = ("train.max_episodes", "train.updates_per_collect", "seed")


SCHEMA = dict(
  task=str,
  seed=nonnegative_int,
  env=dict(
    action_repeat=nonnegative_int,
    size=positive_int,
    renderer=one_of("auto", "gl", "ray"),
    supersample=positive_int,
    camera=int,
    num_envs=positive_int,
    workers=nonnegative_int,
  ),
  model=dict(
    kind=one_of("rssm", "ssm", "drnn"),
    encoder=one_of("conv", "patch"),
    depth=positive_int,
    state=positive_int,
    belief=positive_int,
    hidden=positive_int,
    min_std=finite_positive,
    gru=one_of("reset_before", "reset_after"),
    mean_only=bool,
    belief_only=bool,
    reward_layers=nonnegative_int,
    reward_units=positive_int,
    reward_zero_init=bool,
    bits=one_of(*range(1, 9)),
    dither=bool,
    center=bool,
    plan_dot=one_of("float32", "bfloat16", "auto"),
    image_dtype=one_of("float32", "bfloat16"),
  ),
  loss=dict(
    image_scale=finite_nonnegative,
    reward_scale=finite_nonnegative,
    kl=one_of("planet", "balanced"),
    kl_scale=finite_nonnegative,
    kl_rep_scale=finite_nonnegative,
    free_nats=finite_nonnegative,
    global_prior_scale=finite_nonnegative,
    overshooting_scale=finite_nonnegative,
    overshooting_distance=nonnegative_int,
    overshooting_free_nats=finite_nonnegative,
  ),
  optimizer=dict(
    learning_rate=finite_positive,
    eps=finite_positive,
    eps_form=one_of("tf1", "standard"),
    clip_norm=finite_positive,
    warmup_updates=nonnegative_int,
    ema=fraction,
  ),
  planner=dict(
    name=one_of(*PLANNERS),
    horizon=positive_int,
    warm_start=bool,
    sample_prior=bool,
    **{
      name: dict.fromkeys(constants, any_value)
      for name, constants in default_constants().items()
    },
  ),
  train=dict(
    seed_episodes=positive_int,
    max_episodes=positive_int,
    updates_per_collect=nonnegative_int,
    updates_per_decision=finite_nonnegative,
    batch=positive_int,
    chunk=positive_int,
    collect=one_of("plan", "random"),
    overlap=bool,
    noise=finite_nonnegative,
    replay_bytes=positive_int,
  ),
  evaluate=dict(every=nonnegative_int, episodes=positive_int),
  runtime=dict(
    max_minutes=finite_nonnegative,
    checkpoint_every=positive_int,
    tensorboard=bool,
  ),
)


def check_config(config: ConfigDict) -> None:
  """Checks keys, types, ranges and what must fit together.

  Raises:
    UserError: one line naming the first thing that is wrong.
  """
  validate(config, SCHEMA)
  _check_sizes(config)
  try:
    check_planner(config.planner)
  except ValueError as error:
    name = config.planner.name
    raise UserError(f"config.planner.{name}: {error}") from error
  tasks = split_tasks(config.task)
  require(tasks, "config.task is empty: name a task such as cheetah_run")
  require(
    config.env.num_envs % len(tasks) == 0,
    f"config.env.num_envs={config.env.num_envs} must be a multiple of the"
    f" {len(tasks)} tasks: every phase collects as many episodes of each",
  )
  train, num_envs = config.train, config.env.num_envs
  seeds = -(-train.seed_episodes * len(tasks) // num_envs) * num_envs
  require(
    seeds < train.max_episodes * len(tasks),
    f"config.train.max_episodes={train.max_episodes} leaves no episode after"
    f" the {seeds} seed episodes of {len(tasks)} task(s): raise it",
  )
  collect, decision = train.updates_per_collect, train.updates_per_decision
  require(
    (collect > 0) != (decision > 0) and decision <= MOST_UPDATES,
    f"config.train.updates_per_collect={collect} and"
    f" config.train.updates_per_decision={decision}: one of them must be 0, and"
    f" the other above it (and the latter at most {MOST_UPDATES})",
  )
  require(
    config.model.kind == "rssm" or not config.model.belief_only,
    "config.model.belief_only needs config.model.kind='rssm'",
  )
  distance, chunk = config.loss.overshooting_distance, config.train.chunk
  require(
    distance == 0 or 2 <= distance <= chunk,
    f"config.loss.overshooting_distance={distance} must be 0 or lie between 2"
    f" and config.train.chunk={chunk}",
  )
  require(
    (distance > 0) == (config.loss.overshooting_scale > 0),
    "config.loss.overshooting_distance and config.loss.overshooting_scale"
    " belong together: set both or neither",
  )
  try:
    make_planet(config, action_dim=1)
  except ValueError as error:
    raise UserError(f"config.model or config.loss: {error}") from error


def _check_sizes(config: ConfigDict) -> None:
  for key, value in flatten(config).items():
    if isinstance(value, int) and key != "train.replay_bytes":
      # Counters and seeds are 32 bits wide.
      limit = 2**31 - 1 if key in _COUNTS else LARGEST_SIZE
      require(
        -limit <= value <= limit,
        f"config.{key} must be at most {limit}, got {value}",
      )


def split_tasks(task: str) -> list[str]:
  """Returns the names in a comma-separated list."""
  return [name.strip() for name in task.split(",") if name.strip()]
