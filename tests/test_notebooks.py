"""Every notebook runs in its small mode, and is stored clean."""

import json
import os
import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
LONGEST_CELL = 25
# What the notebooks call so, and how much of it a test needs. The second round
# is the first that is evaluated.
FEWER = {
  "ROUNDS": 2,
  "UPDATES_PER_ROUND": 20,
  "EPISODES": 2,
  "HORIZON": 4,
  "EPOCHS": 3,
}

each_notebook = pytest.mark.parametrize(
  "path", NOTEBOOKS, ids=lambda path: path.stem
)


def code_cells(path):
  cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
  return [cell for cell in cells if cell["cell_type"] == "code"]


def test_the_notebooks_are_found():
  # A glob that finds nothing would pass every test below.
  names = {path.stem for path in NOTEBOOKS}
  assert names >= {"lejepa_colab", "planet_colab", "sigreg_from_scratch"}


@each_notebook
def test_a_notebook_is_valid(path):
  nbformat = pytest.importorskip("nbformat")
  notebook = nbformat.read(path, as_version=nbformat.NO_CONVERT)
  assert notebook.nbformat == 4
  nbformat.validate(notebook)


@each_notebook
def test_a_notebook_is_stored_without_results(path):
  for cell in code_cells(path):
    assert cell["outputs"] == [] and cell["execution_count"] is None


@each_notebook
def test_cells_have_names_and_are_short(path):
  notebook = json.loads(path.read_text(encoding="utf-8"))
  names = [cell["id"] for cell in notebook["cells"]]
  assert len(set(names)) == len(names)
  for cell in code_cells(path):
    lines = "".join(cell["source"]).splitlines()
    assert len(lines) <= LONGEST_CELL, cell["id"]
  assert notebook["metadata"]["kernelspec"]["name"] == "python3"


@each_notebook
def test_no_cell_installs_another_jax(path):
  # Colab's jax fits its own libtpu; another version loses the accelerator.
  for cell in code_cells(path):
    for line in "".join(cell["source"]).splitlines():
      if re.search(r"\bpip\b.*\binstall\b", line):
        assert not re.search(r"\b(jax|jaxlib|libtpu)\b", line), line
        assert "--upgrade" not in line and " -U" not in line, line


@pytest.mark.slow
@pytest.mark.timeout(1800)
@each_notebook
def test_a_notebook_runs_in_its_small_mode(path, tmp_path, monkeypatch):
  nbformat = pytest.importorskip("nbformat")
  nbclient = pytest.importorskip("nbclient")
  pytest.importorskip("ipykernel")
  # The kernel is a process of its own: it must find the package from a folder
  # where the notebook may leave its files.
  paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
  monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, paths)))
  monkeypatch.setenv("JPLANET_NOTEBOOK_SMALL", "1")
  notebook = nbformat.read(path, as_version=4)
  for cell in notebook.cells:
    for name, value in FEWER.items():
      pattern = rf"\b{name}( ?= ?)\d+"
      cell.source = re.sub(pattern, rf"{name}\g<1>{value}", cell.source)
  client = nbclient.NotebookClient(
    notebook,
    timeout=1500,
    kernel_name="python3",
    resources={"metadata": {"path": str(tmp_path)}},
  )
  client.execute()
  outputs = [out for cell in notebook.cells for out in cell.get("outputs", [])]
  assert any("image/png" in out.get("data", {}) for out in outputs)
