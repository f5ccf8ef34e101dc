"""docs/reliability.md names tests; here they are looked up."""

import ast
import fnmatch
import re
from pathlib import Path

TESTS = Path(__file__).parents[1]
PAGE = TESTS.parent / "docs" / "reliability.md"


def table() -> dict[int, list[str]]:
  """Returns what the last column names, by the number of the fault."""
  rows = re.findall(r"^\| (\d+) \|.*\| ([^|]+) \|$", PAGE.read_text(), re.M)
  faults = {}
  for number, cell in rows:
    names = re.findall(r"`([^`]+\.py|[^`]*::[^`]+)`", cell)
    for i, name in enumerate(names):
      if name.startswith("::"):
        names[i] = names[i - 1].partition("::")[0] + name
    faults[int(number)] = names
  return faults


def functions(path: Path) -> list[str]:
  tree = ast.walk(ast.parse(path.read_text()))
  return [node.name for node in tree if isinstance(node, ast.FunctionDef)]


def test_every_fault_has_tests_and_they_exist():
  faults = table()
  assert sorted(faults) == list(range(1, 30))
  for number, names in faults.items():
    assert names, f"fault {number} names no test"
    for name in names:
      file, _, test = name.partition("::")
      path = TESTS / file
      assert path.is_file(), f"fault {number}: no file {file}"
      found = fnmatch.filter(functions(path), test) if test else ["all"]
      assert found, f"fault {number}: no test {name}"


def test_a_remedy_of_every_fault_is_switched_off():
  files = Path(__file__).parent.glob("test_remedies*.py")
  names = [name for file in files for name in functions(file)]
  found = [re.match(r"test_fault_(\d+)_", name) for name in names]
  assert {int(match[1]) for match in found if match} == set(range(1, 30))
