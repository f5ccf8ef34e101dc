"""LeJEPA: the paper's recipe, one for 32x32 images, and small ones for CPUs.

    python -m jlejepa.train --config=configs/lejepa.py:ARG --workdir=DIR

`ARG` is a comma-separated list, applied from left to right:

    digits             scikit-learn's bundled 8x8 digits: the default when no
                       --config is given; two minutes on two cores
    cifar10_cpu        CIFAR-10 on two cores: about a quarter of an hour for
                       10,000 training images; all 50,000 take five times as
                       long, or as long with epochs=9
    cifar10            ResNet-18 on CIFAR-10, for a GPU or TPU
    vit                ViT-S/16 with 2 views of 224 and 6 of 96 pixels: the
                       paper's recipe; name your data
    debug              seconds on two cores, learns nothing
    data=SOURCE        digits, a TFDS name such as cifar10, a folder of images,
                       or an .npz file
    epochs=NUMBER      how long

Any key can be overridden: --config.loss.lam=0.02 (the one trade-off of the
method), --config.train.batch=512.
"""

from ml_collections import ConfigDict

from jlejepa.encoders import default_options
from jlejepa.views import digits_specs, paper_specs, small_specs


def get_config(arg: str = "digits") -> ConfigDict:
  """Returns the configuration that `arg` describes (see the file's top)."""
  config = base()
  for word in [word.strip() for word in arg.split(",") if word.strip()]:
    name, _, value = word.partition("=")
    if name == "data":
      config.data.source = value
    elif name == "epochs":
      config.train.epochs = int(value)
    elif word in VARIANTS:
      VARIANTS[word](config)
    else:
      known = ", ".join([*VARIANTS, "data=SOURCE", "epochs=NUMBER"])
      raise ValueError(f"unknown variant {word!r}: choose from {known}")
  return config


def base() -> ConfigDict:
  """The paper's constants, with the encoder and views of `vit`."""
  global_spec, local_spec = paper_specs()
  return ConfigDict(
    dict(
      seed=0,
      data=dict(
        source="",
        data_dir="",  # where TFDS keeps its datasets; "": its own default
        size=256,  # what folders of images are resized to; 0: as they are
        max_bytes=8 * 2**30,  # images kept in memory
        holdout=0.2,  # of the labelled images, where no test split exists
      ),
      views=dict(
        num_global=2,
        num_local=6,
        global_spec=global_spec._asdict(),
        local_spec=local_spec._asdict(),
      ),
      encoder=dict(name="vit", **default_options()),
      projector=dict(layers=3, hidden=2048, out=64),
      predictor=dict(layers=0, hidden=2048),  # 0: none, as in the paper
      loss=dict(
        lam=0.05,
        lam_batch=0,  # the batch that lam belongs to; 0: whatever is used
        num_slices=1024,
        t_max=3.0,
        num_points=17,
        test="epps_pulley",  # or another of jlejepa.univariate
        directions="random",  # or orthogonal, sobol
        average=0.0,  # decay of averaged weights that make the centre; 0: none
      ),
      optimizer=dict(
        learning_rate=5e-4,
        weight_decay=0.05,
        decay_vectors=True,
        warmup_epochs=10.0,
        final_scale=1e-3,
        clip_norm=0.0,
        b1=0.9,
        b2=0.999,
        probe_learning_rate=1e-3,
        probe_weight_decay=1e-7,
      ),
      train=dict(batch=256, epochs=100, supervised=False),
      evaluate=dict(
        every=10,  # epochs; 0: at the end alone
        train_images=10_000,  # of which the probes learn
        test_images=10_000,
      ),
      runtime=dict(
        max_minutes=0.0,  # 0: no limit
        checkpoint_every=1000,  # steps
        log_every=50,  # steps
        tensorboard=True,
        num_devices=0,  # 0: all
      ),
    )
  )


def _views(config: ConfigDict, specs, num_global: int, num_local: int) -> None:
  config.views.update(num_global=num_global, num_local=num_local)
  config.views.global_spec.update(specs[0]._asdict())
  config.views.local_spec.update(specs[1]._asdict())


def _digits(config: ConfigDict) -> None:
  config.data.update(source="digits", size=0)
  _views(config, digits_specs(), 2, 2)
  config.encoder.name = "compact"
  config.encoder.compact.update(
    widths=(32, 64), blocks=(1, 2), out=128, stem_stride=1, dot="auto"
  )
  config.projector.update(layers=2, hidden=256, out=16)
  config.loss.update(lam=0.05, num_slices=256)
  config.optimizer.update(
    learning_rate=2e-3, weight_decay=0.01, warmup_epochs=5.0, b2=0.98
  )
  config.train.update(batch=256, epochs=150)
  config.evaluate.every = 25
  config.runtime.checkpoint_every = 200


def _cifar10_cpu(config: ConfigDict) -> None:
  config.data.update(source="cifar10", size=0)
  _views(config, small_specs(), 2, 2)
  config.encoder.name = "compact"
  config.encoder.compact.update(widths=(32, 64, 192), out=512, dot="auto")
  config.projector.update(layers=3, hidden=512, out=32)
  config.loss.update(lam=0.05, num_slices=256)
  config.optimizer.update(
    learning_rate=2e-3,
    weight_decay=0.01,
    warmup_epochs=1.5,
    clip_norm=5.0,
    b2=0.98,
  )
  config.train.update(batch=256, epochs=45)
  config.evaluate.every = 9
  config.runtime.checkpoint_every = 200


def _cifar10(config: ConfigDict) -> None:
  config.data.update(source="cifar10", size=0)
  _views(config, small_specs(), 2, 6)
  config.encoder.name = "resnet"
  config.encoder.resnet.update(depth=18, stem="small", dtype="bfloat16")
  config.optimizer.update(learning_rate=2e-3, weight_decay=5e-4)
  config.train.update(batch=512, epochs=200)


def _vit(config: ConfigDict) -> None:
  config.encoder.name = "vit"
  config.encoder.vit.update(
    size="small", patch=16, dtype="bfloat16", drop_path=0.1
  )


def _debug(config: ConfigDict) -> None:
  _digits(config)
  config.encoder.compact.update(widths=(8, 8), blocks=(0, 1), out=16)
  config.projector.update(layers=1, hidden=16, out=8)
  config.loss.num_slices = 16
  config.optimizer.warmup_epochs = 0.5
  config.train.update(batch=64, epochs=1)
  config.evaluate.update(every=1, train_images=200, test_images=100)
  config.runtime.update(log_every=5, checkpoint_every=10, tensorboard=False)


VARIANTS = {
  "cifar10": _cifar10,
  "cifar10_cpu": _cifar10_cpu,
  "debug": _debug,
  "digits": _digits,
  "vit": _vit,
}
