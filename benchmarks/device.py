"""What a case needs to know of its device, in JAX and in torch.

Each library is imported where it is used: a process holds one of them.
"""

import subprocess
from collections.abc import Callable


def on_gpu() -> bool:
  """Tells whether the machine has a GPU, without JAX or torch.

  The harness itself must not hold a device that its processes measure.
  """
  try:
    done = subprocess.run(["nvidia-smi", "-L"], capture_output=True)
  except FileNotFoundError:
    return False
  return done.returncode == 0 and bool(done.stdout.strip())


def jax_memory() -> Callable[[], int] | None:
  """Returns what reads the peak of JAX's device memory; None on the CPU."""
  import jax

  device = jax.devices()[0]
  if device.platform == "cpu":
    return None
  return lambda: device.memory_stats()["peak_bytes_in_use"]


def torch_device():
  """Returns the GPU if torch sees one, else the CPU."""
  import torch

  return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def torch_memory() -> Callable[[], int] | None:
  """Returns what reads the peak of torch's GPU memory; None on the CPU."""
  import torch

  return torch.cuda.max_memory_allocated if torch.cuda.is_available() else None


def torch_wait() -> None:
  """Waits for the GPU, if there is one."""
  import torch

  if torch.cuda.is_available():
    torch.cuda.synchronize()


def captured(work: Callable[[], object]) -> Callable[[], None]:
  """Returns what replays torch's `work` as one CUDA graph."""
  import torch

  side = torch.cuda.Stream()
  side.wait_stream(torch.cuda.current_stream())
  with torch.cuda.stream(side):
    for _ in range(3):
      work()
  torch.cuda.current_stream().wait_stream(side)
  graph = torch.cuda.CUDAGraph()
  with torch.cuda.graph(graph):
    work()
  return graph.replay
