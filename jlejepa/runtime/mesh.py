"""Spread a batch over devices; everything else is one copy on each.

A loss written on the global batch needs nothing more: under jit its means are
means over all devices.
"""

from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from jlejepa.runtime.errors import require


def data_mesh(num_devices: int | None = None) -> Mesh:
  """Returns a mesh with one axis, `data`, over the first devices.

  Args:
    num_devices: how many; None for all, over all processes.

  Raises:
    UserError: if there are not so many devices.
  """
  devices = jax.devices()
  count = len(devices) if num_devices is None else num_devices
  require(
    1 <= count <= len(devices),
    f"num_devices must be from 1 to {len(devices)}, got {count}",
  )
  # The default axis type became Explicit in jax 0.9, which Flax layers and
  # plain reshapes do not survive.
  return jax.make_mesh(
    (count,), ("data",), axis_types=(AxisType.Auto,), devices=devices[:count]
  )


def shard_batch(mesh: Mesh, tree: Any) -> Any:
  """Splits every array along its first axis over the mesh.

  Args:
    mesh: from `data_mesh`.
    tree: arrays `[B, ...]`; with several processes, each gives its own part.

  Raises:
    UserError: if this process's `B` is no multiple of its device count.
  """
  count = mesh.local_mesh.size
  sharding = NamedSharding(mesh, PartitionSpec("data"))

  def place(path: Any, array: Any) -> jax.Array:
    shape = np.shape(array)
    name = jax.tree_util.keystr(path)
    require(
      shape and shape[0] % count == 0,
      f"the batch{name} of shape {shape} does not divide over {count} devices: "
      f"make its first axis a multiple of {count}, or use fewer devices",
    )
    if jax.process_count() == 1:
      return jax.device_put(array, sharding)
    return jax.make_array_from_process_local_data(sharding, np.asarray(array))

  return jax.tree_util.tree_map_with_path(place, tree)


def replicate(mesh: Mesh, tree: Any) -> Any:
  """Puts a copy of every array on each device of the mesh.

  With several processes every process must pass the same values.
  """
  return jax.device_put(tree, NamedSharding(mesh, PartitionSpec()))
