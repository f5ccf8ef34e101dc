"""Turn the leaves of a state into what orbax can carry, and back."""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import SingleDeviceSharding

from jlejepa.runtime.errors import UserError


def names_and_leaves(tree: Any) -> tuple[list[str], list[Any]]:
  """Returns a dotted name for each leaf of a pytree, and the leaves.

  Raises:
    UserError: if two leaves have one name, as `{"a.b": x, "a": {"b": y}}`.
  """
  pairs, _ = jax.tree_util.tree_flatten_with_path(tree)
  names = [
    jax.tree_util.keystr(path, simple=True, separator=".") or "value"
    for path, _ in pairs
  ]
  for name in names:
    if names.count(name) > 1:
      raise UserError(f"two entries of the state are both named {name}")
  return names, [leaf for _, leaf in pairs]


def describe_leaf(leaf: Any) -> list:
  """Returns shape and dtype of an array; of a Python number, `[]` and type."""
  if isinstance(leaf, bool | int | float):
    return [[], type(leaf).__name__]
  return [list(leaf.shape), str(leaf.dtype)]


def differences(saved: Mapping[str, list], wanted: Mapping[str, list]) -> list:
  """Returns a phrase for every name whose descriptions are not the same."""
  found = []
  for name in dict.fromkeys([*wanted, *saved]):
    if name not in saved:
      found.append(f"{name} is not in it")
    elif name not in wanted:
      found.append(f"{name} is in it but not wanted")
    elif list(saved[name]) != wanted[name]:
      (shape, dtype), (shape2, dtype2) = saved[name], wanted[name]
      found.append(f"{name} is {dtype}{shape}, wanted {dtype2}{shape2}")
  return found


def is_key(leaf: Any) -> bool:
  """Says whether a leaf is an array of typed PRNG keys."""
  return hasattr(leaf, "dtype") and jax.dtypes.issubdtype(
    leaf.dtype, jax.dtypes.prng_key
  )


def copy_leaf(leaf: Any) -> Any:
  """Returns a leaf that nobody else can donate or change."""
  on_device = isinstance(leaf, jax.Array)
  if on_device and (is_key(leaf) or len(leaf.sharding.device_set) > 1):
    return leaf.copy()
  # NumPy's copy: on a CPU `np.asarray` of a JAX array is a view of it.
  return np.array(leaf) if hasattr(leaf, "dtype") else leaf


def storable(leaf: Any) -> jax.Array | np.ndarray:
  """Returns a leaf as an array that orbax saves and restores alike."""
  if is_key(leaf):
    leaf = jax.random.key_data(leaf)
  if isinstance(leaf, jax.Array) and (
    jax.process_count() > 1 or len(leaf.sharding.device_set) > 1
  ):
    return leaf
  # What lies on one device orbax writes twice as fast as a NumPy array: it
  # then has no slices of it to look for.
  return np.asarray(leaf)


def restore_target(leaf: Any) -> jax.ShapeDtypeStruct | np.ndarray:
  """Returns what orbax needs to know to restore a leaf like the template's."""
  if not isinstance(leaf, jax.Array | jax.ShapeDtypeStruct):
    # Orbax saves NumPy scalars, but refuses them in a template.
    return np.asarray(leaf)
  # Without a sharding, orbax asks for the devices the state was saved on.
  sharding = SingleDeviceSharding(jax.local_devices()[0])
  if is_key(leaf):
    leaf = jax.eval_shape(jax.random.key_data, leaf)
  elif leaf.sharding is not None:
    sharding = leaf.sharding
  return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)


def restore_leaf(leaf: Any, value: Any, key_impl: str | None) -> Any:
  """Returns a restored value as the kind of leaf that the template has.

  Args:
    leaf: the template's leaf.
    value: what orbax restored.
    key_impl: for PRNG keys, the generator's name.
  """
  if key_impl is not None:
    key = jax.random.wrap_key_data(value, impl=key_impl)
    return key if leaf.sharding is None else jax.device_put(key, leaf.sharding)
  if isinstance(leaf, bool | int | float):
    return type(leaf)(value)
  if isinstance(leaf, np.generic):
    return leaf.dtype.type(value)
  return value
