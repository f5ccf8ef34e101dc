"""What runs in a worker process, and how it comes to be there."""

import contextlib
import functools
import multiprocessing
import os
import signal
import socket
import struct
import sys
import threading
import traceback
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from multiprocessing.connection import Connection, wait
from typing import Any

import dm_env

from jplanet.envs import renderers
from jplanet.envs.suite import make_env
from jplanet.envs.vector import Lockstep

Maker = Callable[[], dm_env.Environment] | Mapping[str, Any]


def importable(maker: Maker) -> Callable[[], dm_env.Environment]:
  """Returns a function that a fresh process can import and call.

  Raises:
    ValueError: the function is not at the top level of a module.
  """
  if isinstance(maker, Mapping):
    # Found out here, once, rather than in every worker.
    renderer = renderers.choose(maker.get("renderer", "auto"))
    return functools.partial(make_env, **{**maker, "renderer": renderer})
  function = getattr(maker, "func", maker)
  name = getattr(function, "__qualname__", "")
  if getattr(function, "__module__", None) == "__main__" or "<" in name:
    raise ValueError(
      f"a worker cannot import {name or function!r}: define it at the top "
      "level of a module, or pass the keyword arguments of make_env"
    )
  return maker


@contextlib.contextmanager
def no_main() -> Iterator[None]:
  """Keeps a spawned process from importing the program that started it.

  It would load jax, of which one process per machine is enough.
  """
  main = sys.modules["__main__"]
  sys.modules["__main__"] = types.ModuleType("__main__")
  try:
    yield
  finally:
    sys.modules["__main__"] = main


def limit_waits(pipe: Connection, seconds: float) -> None:
  """Lets sends and reads on a pipe fail that take longer than `seconds`.

  `poll` waits for the beginning of a message; a worker that stops in its
  middle would be waited for without end.
  """
  whole = int(seconds)
  limit = struct.pack("ll", whole, int(1e6 * (seconds - whole)))
  with socket.socket(fileno=os.dup(pipe.fileno())) as end:
    for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
      end.setsockopt(socket.SOL_SOCKET, option, limit)


def end_with_parent() -> None:
  """Ends this process when its parent is gone, even if an environment hangs."""
  parent = multiprocessing.parent_process()
  if parent is not None:
    threading.Thread(
      target=lambda: (wait([parent.sentinel]), os._exit(1)), daemon=True
    ).start()


def work(pipe: Connection, makers: Sequence[Callable]) -> None:
  """Serves environments until the parent closes the pipe or is gone.

  It answers `("reset", seeds)` and `("step", actions)`, and ends at
  `("close", None)` or with the traceback of what an environment raised.
  """
  # The parent decides when workers end: a signal to the whole group must not
  # take them away while it saves.
  signal.signal(signal.SIGINT, signal.SIG_IGN)
  signal.signal(signal.SIGTERM, signal.SIG_IGN)
  end_with_parent()
  try:
    envs = Lockstep([make() for make in makers])
    pipe.send(("ok", (envs.action_dim, envs.image_shape, envs.renderer)))
    while True:
      command, content = pipe.recv()
      if command == "close":
        envs.close()
        return
      if command == "reset":
        answer = (envs.reset(content), envs.physics_errors)
      else:
        answer = (*envs.step(content), envs.physics_errors)
      pipe.send(("ok", answer))
  except (EOFError, BrokenPipeError, ConnectionResetError):
    # The parent is gone.
    return
  except Exception:
    with contextlib.suppress(OSError):
      pipe.send(("raised", traceback.format_exc()))
