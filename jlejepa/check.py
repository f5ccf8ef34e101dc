"""The rules that a configuration of LeJEPA keeps, checked before any work."""

from ml_collections import ConfigDict

from jlejepa import univariate
from jlejepa.encoders import ENCODERS, default_options
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
from jlejepa.setup import SAMPLERS, make_model, view_specs
from jlejepa.views import ViewSpec


def _at_least_two(name, value):
  positive_int(name, value)
  require(
    value >= 2,
    f"{name}={value}: SIGReg compares the samples of a batch, give 2 or more",
  )


SCHEMA = dict(
  seed=nonnegative_int,
  data=dict(
    source=str,
    data_dir=str,
    size=nonnegative_int,
    max_bytes=positive_int,
    holdout=fraction,
  ),
  views=dict(
    num_global=positive_int,
    num_local=nonnegative_int,
    global_spec=dict.fromkeys(ViewSpec._fields, any_value),
    local_spec=dict.fromkeys(ViewSpec._fields, any_value),
  ),
  encoder=dict(
    name=one_of(*ENCODERS),
    **{
      name: dict.fromkeys(options, any_value)
      for name, options in default_options().items()
    },
  ),
  projector=dict(layers=nonnegative_int, hidden=positive_int, out=positive_int),
  predictor=dict(layers=nonnegative_int, hidden=positive_int),
  loss=dict(
    lam=fraction,
    lam_batch=nonnegative_int,
    num_slices=positive_int,
    t_max=finite_positive,
    num_points=positive_int,
    test=one_of(*univariate.__all__),
    directions=one_of(*SAMPLERS),
    average=fraction,
  ),
  optimizer=dict(
    learning_rate=finite_positive,
    weight_decay=finite_nonnegative,
    decay_vectors=bool,
    warmup_epochs=finite_nonnegative,
    final_scale=fraction,
    clip_norm=finite_nonnegative,
    b1=fraction,
    b2=fraction,
    probe_learning_rate=finite_positive,
    probe_weight_decay=finite_nonnegative,
  ),
  train=dict(batch=_at_least_two, epochs=positive_int, supervised=bool),
  evaluate=dict(
    every=nonnegative_int, train_images=positive_int, test_images=positive_int
  ),
  runtime=dict(
    max_minutes=finite_nonnegative,
    checkpoint_every=positive_int,
    log_every=positive_int,
    tensorboard=bool,
    num_devices=nonnegative_int,
  ),
)


def check_config(config: ConfigDict) -> None:
  """Checks keys, types, ranges and what must fit together.

  Raises:
    UserError: one line naming the first thing that is wrong.
  """
  validate(config, SCHEMA)
  for key, value in flatten(config).items():
    # Counters and seeds are 32 bits wide.
    require(
      key == "data.max_bytes"
      or not isinstance(value, int)
      or abs(value) < 2**31,
      f"config.{key} must be below {2**31}, got {value}",
    )
  require(
    config.projector.layers or not config.predictor.layers,
    "config.predictor.layers needs a projector: set config.projector.layers",
  )
  require(
    config.loss.num_points >= 3 and config.loss.num_points % 2,
    f"config.loss.num_points={config.loss.num_points} must be odd, at least 3",
  )
  try:
    view_specs(config)
    make_model(config)
  except ValueError as error:
    raise UserError(f"config.views or config.encoder: {error}") from error
