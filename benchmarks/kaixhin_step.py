"""A training step around Kaixhin/PlaNet's model classes.

The repository keeps its step in a script that cannot be imported. This one does
the same arithmetic (its losses, Adam with an epsilon of 1e-4, gradients clipped
at 1000) on `steps` pictures of each sequence. Overshooting takes its columns by
one gather where the script pads them one by one: the same numbers, faster.
"""

import functools
from collections.abc import Callable

import torch
from torch.distributions import Normal, kl_divergence

from benchmarks import device

FREE_NATS = 3.0


def make(
  batch: int,
  steps: int,
  *,
  overshooting: bool = False,
  tf32: bool = False,
  autocast: bool = False,
  graph: bool = False,
) -> Callable[[], None]:
  """Makes the update of one batch of random floats.

  Args:
    batch: sequences.
    steps: pictures of each that are encoded and decoded.
    overshooting: latent overshooting over `steps`.
    tf32: let float32 products and convolutions use TensorFloat-32.
    autocast: run the forward pass under autocast to bfloat16.
    graph: capture the whole update as one CUDA graph.
  """
  from models import (
    RewardModel,
    TransitionModel,
    VisualEncoder,
    VisualObservationModel,
  )

  # Checking the arguments waits for the GPU, which a graph cannot hold.
  normal = functools.partial(Normal, validate_args=not graph)
  where = device.torch_device()
  if tf32:
    torch.set_float32_matmul_precision("high")
    torch.backends.cudnn.allow_tf32 = True
    torch.backends.cudnn.benchmark = True
  transition = TransitionModel(200, 30, 6, 200, 1024).to(where)
  encoder = VisualEncoder(1024).to(where)
  decoder = VisualObservationModel(30, 200, 1024).to(where)
  reward_head = RewardModel(200, 30, 200).to(where)
  modules = (transition, decoder, reward_head, encoder)
  weights = [w for module in modules for w in module.parameters()]
  optimizer = torch.optim.Adam(weights, lr=1e-3, eps=1e-4, capturable=graph)
  images = torch.rand(steps, batch, 3, 64, 64, device=where) - 0.5
  actions = 2 * torch.rand(steps, batch, 6, device=where) - 1
  rewards = torch.rand(steps, batch, device=where)
  alive = torch.ones(steps, batch, 1, device=where)
  belief = torch.zeros(batch, 200, device=where)
  state = torch.zeros(batch, 30, device=where)
  free = torch.full((1,), FREE_NATS, device=where)

  def loss():
    embeds = encoder(images.flatten(0, 1)).unflatten(0, (steps, batch))
    beliefs, _, *rest = transition(state, actions, belief, embeds, alive)
    prior, (samples, *posterior) = rest[:2], rest[2:]
    flat = beliefs.flatten(0, 1), samples.flatten(0, 1)
    decoded = decoder(*flat)
    image = (decoded - images.flatten(0, 1)).square().sum((1, 2, 3)).mean()
    reward = (reward_head(*flat) - rewards.flatten()).square().mean()
    kl = kl_divergence(normal(*posterior), normal(*prior)).sum(2)
    total = image + reward + torch.max(kl, free).mean()
    if overshooting:
      total = total + overshoot(beliefs, samples, posterior)
    return total

  # Column t starts from the posterior of t - 1; row k is time t + k.
  time = torch.arange(1, steps) + torch.arange(steps)[:, None]
  mask = (time < steps).to(where)[..., None, None]
  time = time.clamp(max=steps - 1).to(where)
  rows = lambda x: (x[time] * mask).flatten(1, 2)

  def overshoot(beliefs, samples, posterior):
    start = samples[:-1].detach().flatten(0, 1)
    belief = beliefs[:-1].flatten(0, 1)
    valid = rows(alive)
    prior = transition(start, rows(actions), belief, None, valid)[2:]
    mean, std = (rows(x.detach()) for x in posterior)
    target = normal(mean, std + (1 - valid))
    kl = (kl_divergence(target, normal(*prior)) * valid).sum(2)
    return torch.max(kl, free).mean()

  def update():
    with torch.autocast(
      where.type, torch.bfloat16, enabled=autocast, cache_enabled=not graph
    ):
      value = loss()
    optimizer.zero_grad()
    value.backward()
    torch.nn.utils.clip_grad_norm_(weights, 1000)
    optimizer.step()

  work = device.captured(update) if graph else update

  def run():
    work()
    device.torch_wait()

  for _ in range(2):  # torch.jit optimises a module in its first calls
    run()
  return run
