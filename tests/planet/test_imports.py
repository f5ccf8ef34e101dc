"""The architecture, read from the import statements."""

import ast
import pathlib

import pytest

ROOT = pathlib.Path(__file__).parents[2]
FILES = sorted(
  path.relative_to(ROOT)
  for package in ("jplanet", "jlejepa")
  for path in (ROOT / package).rglob("*.py")
)
MATHS = {
  f"jplanet/{name}.py"
  for name in (
    "agent", "cells", "drnn", "gaussian", "image_networks", "late_gradients",
    "loops", "losses", "networks", "optimizer", "overshooting", "preprocess",
    "rssm", "ssm", "types", "unroll",
  )
}  # fmt: skip
FLAX = {
  "networks", "image_networks", "cells", "rssm", "ssm", "drnn", "learner",
}  # fmt: skip


def imports(path):
  """Returns the dotted names that a file imports, at the top or inside."""
  names = set()
  for node in ast.walk(ast.parse((ROOT / path).read_text())):
    if isinstance(node, ast.Import):
      names |= {alias.name for alias in node.names}
    elif isinstance(node, ast.ImportFrom):
      assert node.level == 0, f"{path} has a relative import"
      names |= {node.module} | {f"{node.module}.{a.name}" for a in node.names}
  return names


def takes(path, *modules):
  """Returns which of the modules, or parts of them, a file imports."""
  return {
    name
    for name in imports(path)
    for module in modules
    if name == module or name.startswith(f"{module}.")
  }


def under(*folders):
  return [p for p in FILES if p.as_posix().startswith(folders)]


def test_the_reader_of_imports_sees_them_all():
  assert len(FILES) > 60
  assert takes("jplanet/train.py", "jlejepa.runtime")
  # This one is inside a function.
  assert takes("jplanet/report.py", "jplanet.video")


@pytest.mark.parametrize("path", under("jlejepa/"), ids=str)
def test_jlejepa_never_imports_jplanet(path):
  assert not takes(path, "jplanet")


@pytest.mark.parametrize("path", under("jlejepa/runtime/"), ids=str)
def test_the_runtime_stands_alone(path):
  inside = takes(path, "jlejepa") - {"jlejepa"}
  assert all(name.startswith("jlejepa.runtime") for name in inside), inside


def test_nothing_imports_configs():
  assert [p for p in FILES if takes(p, "configs")] == []


def test_mathematics_never_sees_a_config_object():
  assert {str(p) for p in FILES} >= MATHS
  maths = [p for p in FILES if str(p) in MATHS] + under("jplanet/planners/")
  foreign = ("ml_collections", "jlejepa.runtime", "jplanet.check")
  assert [p for p in maths if takes(p, *foreign)] == []


def test_environments_never_import_jax():
  foreign = ("jax", "flax", "optax", "chex", "orbax")
  # jplanet.types would bring it along.
  foreign += ("jplanet.types", "jplanet.preprocess", "jplanet.jax_envs")
  assert [p for p in under("jplanet/envs/") if takes(p, *foreign)] == []


def test_flax_stays_in_the_few_network_files():
  users = {p.stem for p in under("jplanet/") if takes(p, "flax")}
  assert users <= FLAX


def test_no_lifted_transforms_and_no_callbacks_to_the_host():
  banned = {
    "nn.scan", "nn.vmap", "nn.remat", "jax.pmap", "jax.pure_callback",
    "jax.experimental.io_callback", "jax.debug.callback",
  }  # fmt: skip
  for path in FILES:
    for node in ast.walk(ast.parse((ROOT / path).read_text())):
      if isinstance(node, ast.Attribute):
        assert ast.unparse(node) not in banned, f"{path}:{node.lineno}"
