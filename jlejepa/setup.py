"""The parts of a run, built from its configuration."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
from ml_collections import ConfigDict

from jlejepa import directions, univariate
from jlejepa.data import Dataset
from jlejepa.encoders import Encoder, make_encoder, make_projector
from jlejepa.learner import LossOptions, TrainState, init_state
from jlejepa.model import Model
from jlejepa.objective import scaled_lambda
from jlejepa.optimizers import make_optimizer
from jlejepa.runtime.errors import UserError, require
from jlejepa.views import ViewSpec, check_spec, clean_view, make_views

SAMPLERS = {
  "random": directions.random_directions,
  "orthogonal": directions.orthogonal_directions,
  "sobol": directions.sobol_directions,
}


class Parts(NamedTuple):
  """What a run computes with.

  Attributes:
    model: the networks.
    optimizer: of their weights and of the online probe's.
    options: of the loss.
    make_views: `(key, image) -> Views`.
    clean_view: `image -> [S, S, C]`, for probes.
    init: `init_state` of all these, `(key, images=...)`; compiled.
    steps_per_epoch: updates in an epoch.
    total_steps: updates of the whole run.
  """

  model: Model
  optimizer: optax.GradientTransformation
  options: LossOptions
  make_views: Callable
  clean_view: Callable
  init: Callable
  steps_per_epoch: int
  total_steps: int


def build(
  config: ConfigDict,
  dataset: Dataset,
  *,
  encoder: Encoder | None = None,
  views: Callable | None = None,
  clean: Callable | None = None,
) -> Parts:
  """Builds everything that needs the configuration and the data's shape.

  Args:
    config: as `configs/lejepa.py` makes it.
    dataset: the training examples.
    encoder: in place of the configuration's.
    views: `(key, example) -> Views`, in place of the configuration's.
    clean: `example -> input of the encoder`, to go with `views`.

  Raises:
    UserError: for what does not fit together.
  """
  batch, count = config.train.batch, len(dataset.images)
  require(
    batch <= count,
    f"config.train.batch={batch} is more than the {count} training examples:"
    " lower it",
  )
  require(
    not config.train.supervised or dataset.num_classes > 0,
    f"config.train.supervised needs labels: {dataset.name} has none",
  )
  steps_per_epoch = count // batch
  total_steps = steps_per_epoch * config.train.epochs
  try:
    model = make_model(config, encoder)
    global_spec, local_spec = view_specs(config)
  except ValueError as error:
    raise UserError(f"config: {error}") from error
  if views is None:
    shape = dataset.images.shape[1:]
    check = {"global": global_spec}
    if config.views.num_local:
      check["local"] = local_spec
    for name, spec in check.items():
      try:
        check_spec(spec, shape, name=f"config.views.{name}_spec")
      except ValueError as error:
        raise UserError(str(error)) from error
    views = partial(
      make_views,
      global_spec=global_spec,
      local_spec=local_spec,
      num_global=config.views.num_global,
      num_local=config.views.num_local,
    )
    clean = partial(clean_view, spec=global_spec)
  optimizer = optimizer_of(config, steps_per_epoch)
  init = partial(
    init_state,
    model=model,
    optimizer=optimizer,
    num_classes=dataset.num_classes,
    average=config.loss.average,
  )
  return Parts(
    model=model,
    optimizer=optimizer,
    options=loss_options(config),
    make_views=views,
    clean_view=clean if clean is not None else lambda example: example,
    # One program: op by op, each would be compiled by itself.
    init=jax.jit(init),
    steps_per_epoch=steps_per_epoch,
    total_steps=total_steps,
  )


def first_state(
  config: ConfigDict, parts: Parts, dataset: Dataset
) -> TrainState:
  """Draws the weights that a run starts from, the same at every call.

  Args:
    config: the run's.
    parts: built from it.
    dataset: the training examples.
  """
  view_key, key = jax.random.split(
    jax.random.fold_in(jax.random.key(config.seed), 0)
  )
  image = np.asarray(dataset.images[np.arange(2)])
  views = jax.eval_shape(
    lambda key: jax.vmap(parts.make_views)(jax.random.split(key, 2), image),
    view_key,
  ).global_
  return parts.init(key, images=np.zeros((2, *views.shape[2:]), np.float32))


def make_model(config: ConfigDict, encoder: Encoder | None = None) -> Model:
  """Makes the networks.

  Raises:
    ValueError: for an encoder or projector that cannot be made.
  """
  name, out = config.encoder.name, config.projector.out
  if encoder is None:
    encoder = make_encoder(name, **config.encoder[name])
  predictor = None
  if config.predictor.layers:
    predictor = make_projector(**config.predictor, out=out)
  return Model(encoder, make_projector(**config.projector), predictor)


def view_specs(config: ConfigDict) -> tuple[ViewSpec, ViewSpec]:
  """Returns the specifications of global and local views."""
  return ViewSpec(**config.views.global_spec), ViewSpec(
    **config.views.local_spec
  )


def lambda_of(config: ConfigDict) -> float:
  """Returns the trade-off at the config's batch (`scaled_lambda`)."""
  loss = config.loss
  if not loss.lam_batch:
    return float(loss.lam)
  return scaled_lambda(loss.lam, config.train.batch, loss.lam_batch)


def loss_options(config: ConfigDict) -> LossOptions:
  """Reads the section `loss`."""
  loss = config.loss
  return LossOptions(
    lam=lambda_of(config),
    num_slices=loss.num_slices,
    t_max=loss.t_max,
    num_points=loss.num_points,
    test=(
      None if loss.test == "epps_pulley" else getattr(univariate, loss.test)
    ),
    sampler=SAMPLERS[loss.directions],
    average=loss.average,
    supervised=config.train.supervised,
  )


def optimizer_of(
  config: ConfigDict, steps_per_epoch: int
) -> optax.GradientTransformation:
  """Makes the optimiser; epochs of the section become steps.

  Raises:
    UserError: for a warm-up that is no shorter than the run.
  """
  options: dict[str, Any] = dict(config.optimizer)
  warmup = options.pop("warmup_epochs")
  try:
    return make_optimizer(
      **options,
      total_steps=steps_per_epoch * config.train.epochs,
      warmup_steps=round(warmup * steps_per_epoch),
    )
  except ValueError as error:
    raise UserError(
      f"config.optimizer.warmup_epochs={warmup}: {error}"
    ) from error
