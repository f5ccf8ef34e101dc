"""PlaNet: the paper's agent, a small one for two CPU cores, and ablations.

    python -m jplanet.train --config=configs/planet.py:ARG --workdir=DIR

`ARG` is a comma-separated list, applied from left to right:

    cheetah_run, ...   the paper's configuration (version C, the code released
                       with it) on a task: 10 to 20 hours on one V100 in 2019
    all_tasks          one agent for six tasks
    cpu                32x32 pixels, a small model and a small planner: the
                       default when no --config is given; see `results/` for
                       its curves (about 25 minutes on two cores)
    debug              a minute on two cores, learns nothing
    task=NAME          another task for `cpu` or `debug`

and the ablations of the paper:

    random_collection  random actions for data, planning for evaluation (Fig. 5)
    random_shooting    the best of 1000 sequences instead of CEM (Fig. 5)
    deterministic      the GRU alone, as published: means for samples, no KL
    deterministic_fair the same with heads that see the GRU's state alone
    stochastic         the SSM: no deterministic path (Fig. 4)
    drnn               two GRUs with a stochastic sequence between (Fig. 8)
    overshooting       latent overshooting over 50 steps (Fig. 8)
    first_release      overshooting, global prior and ramp of the first version
"""

from ml_collections import ConfigDict

from jplanet.planning import default_constants

SIX_TASKS = (
  "cartpole_swingup,reacher_easy,cheetah_run,finger_spin,cup_catch,walker_walk"
)


def get_config(arg: str = "cpu") -> ConfigDict:
  """Returns the configuration that `arg` describes (see the file's top)."""
  config = paper()
  for word in [word.strip() for word in arg.split(",") if word.strip()]:
    if word.startswith("task="):
      config.task = word.removeprefix("task=")
    elif word in VARIANTS:
      VARIANTS[word](config)
    else:
      config.task = word
  return config


def paper() -> ConfigDict:
  """The paper's sizes and constants (Appendix A; the released code)."""
  return ConfigDict(
    dict(
      task="cartpole_swingup",  # several, separated by commas: one agent
      seed=0,
      env=dict(
        action_repeat=0,  # 0: the task's own (Appendix A)
        size=64,
        renderer="auto",  # gl, ray, or gl where a GPU renders and ray elsewhere
        supersample=1,
        camera=0,
        num_envs=1,  # episodes collected side by side
        workers=0,  # processes that step them; 0: this one
      ),
      model=dict(
        kind="rssm",
        encoder="conv",
        depth=32,
        image_dtype="float32",  # of the convolutions; bfloat16 on a GPU
        state=30,
        belief=200,
        hidden=200,
        min_std=0.1,
        gru="reset_before",
        mean_only=False,
        belief_only=False,
        reward_layers=3,
        reward_units=300,
        reward_zero_init=False,
        bits=5,
        dither=True,
        center=False,
        plan_dot="float32",  # or bfloat16, or auto: where it is fast
      ),
      loss=dict(
        image_scale=1.0,
        reward_scale=10.0,
        kl="planet",
        kl_scale=1.0,
        kl_rep_scale=0.2,
        free_nats=3.0,
        global_prior_scale=0.0,
        overshooting_scale=0.0,
        overshooting_distance=0,
        overshooting_free_nats=0.0,
      ),
      optimizer=dict(
        learning_rate=1e-3,
        eps=1e-4,
        eps_form="tf1",
        clip_norm=1000.0,
        warmup_updates=0,
        ema=0.0,  # averaged weights for acting; 0 acts with the latest
      ),
      planner=dict(
        name="cem",  # or gradient, icem, mppi, random_shooting
        horizon=12,
        warm_start=False,
        sample_prior=True,
        **default_constants(),  # a section for each planner
      ),
      train=dict(
        seed_episodes=5,
        max_episodes=1000,  # per task, the seed episodes included
        updates_per_collect=100,  # after every collect phase; or
        updates_per_decision=0.0,  # for every decision so far; one of them is 0
        batch=50,
        chunk=50,
        collect="plan",  # or "random"
        # Collect beside the updates, with the weights from before them; else
        # after the updates (Algorithm 1).
        overlap=False,
        noise=0.3,
        replay_bytes=8 * 2**30,
      ),
      evaluate=dict(every=10, episodes=10),  # every so many collect phases
      runtime=dict(
        max_minutes=0.0,  # 0: no limit
        checkpoint_every=10,  # collect phases
        tensorboard=True,
      ),
    )
  )


def _cpu(config: ConfigDict) -> None:
  config.env.update(size=32, renderer="ray", supersample=2, num_envs=8)
  config.model.update(
    encoder="patch",
    state=24,
    belief=128,
    hidden=128,
    gru="reset_after",
    reward_layers=2,
    reward_units=128,
    reward_zero_init=True,
    bits=8,
    dither=False,
    center=True,
    plan_dot="auto",
  )
  # A picture of 32x32 has a quarter of the pixels: the same weight in all.
  config.loss.update(image_scale=4.0, kl="balanced", free_nats=1.0)
  config.optimizer.update(
    eps=1e-5, eps_form="standard", clip_norm=100.0, ema=0.99
  )
  # On trained models iCEM gets more from a sparse reward than CEM of the same
  # size, and more from 75 plans of 16 decisions than from 100 of 12
  # (results/README.md). The initial spread is PlaNet's.
  config.planner.update(
    name="icem", horizon=16, warm_start=True, sample_prior=False
  )
  config.planner.icem.update(candidates=75, init_std=1.0)
  config.train.update(
    seed_episodes=8,
    max_episodes=100_000,
    # 25 per episode of the cart-pole, 50 of the reacher, whose model believes
    # in rewards that are not there with 25.
    updates_per_collect=0,
    updates_per_decision=0.2,
    batch=16,
    chunk=32,
    overlap=True,
    replay_bytes=2 * 2**30,
  )
  config.runtime.max_minutes = 25.0


def _debug(config: ConfigDict) -> None:
  _cpu(config)
  config.env.update(num_envs=2)
  config.model.update(depth=8, state=8, belief=16, hidden=16, reward_units=16)
  config.planner.update(name="cem", horizon=4)
  config.planner.cem.update(
    candidates=8, elites=2, iterations=2, include_mean=True
  )
  config.train.update(
    seed_episodes=2, max_episodes=6, batch=4, chunk=10,
    updates_per_collect=4, updates_per_decision=0.0,
  )  # fmt: skip
  config.evaluate.update(every=1, episodes=2)
  config.runtime.update(max_minutes=0.0, checkpoint_every=1)


def _all_tasks(config: ConfigDict) -> None:
  config.task = SIX_TASKS
  config.env.num_envs = 6
  config.train.updates_per_collect *= 6
  # The paper forgets nothing: 1,000 episodes of each of the six are 21.6 GiB.
  config.train.replay_bytes = 24 * 2**30


def _random_collection(config: ConfigDict) -> None:
  config.train.collect = "random"


def _random_shooting(config: ConfigDict) -> None:
  config.planner.name = "random_shooting"


def _deterministic(config: ConfigDict) -> None:
  config.model.mean_only = True
  config.loss.kl_scale = 0.0
  config.loss.kl_rep_scale = 0.0


def _deterministic_fair(config: ConfigDict) -> None:
  _deterministic(config)
  config.model.belief_only = True


def _stochastic(config: ConfigDict) -> None:
  config.model.kind = "ssm"


def _drnn(config: ConfigDict) -> None:
  config.model.kind = "drnn"


def _overshooting(config: ConfigDict) -> None:
  config.loss.overshooting_scale = 1.0
  config.loss.overshooting_distance = config.train.chunk
  config.loss.overshooting_free_nats = config.loss.free_nats


def _first_release(config: ConfigDict) -> None:
  config.loss.free_nats = 2.0
  config.loss.global_prior_scale = 0.1
  config.optimizer.warmup_updates = 200
  config.model.reward_layers = 2
  config.model.reward_units = 100
  _overshooting(config)


VARIANTS = {
  "all_tasks": _all_tasks,
  "cpu": _cpu,
  "debug": _debug,
  "deterministic": _deterministic,
  "deterministic_fair": _deterministic_fair,
  "drnn": _drnn,
  "first_release": _first_release,
  "overshooting": _overshooting,
  "random_collection": _random_collection,
  "random_shooting": _random_shooting,
  "stochastic": _stochastic,
}
