"""The cases of LeJEPA's benchmarks run, and both sides do the same work."""

import importlib
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import lejepa_sizes, lejepa_step, sigreg, views
from jlejepa import epps_pulley, random_directions


def build(case, **options):
  """Runs a case once at tiny sizes and returns its step."""
  module, _, function = case.build.partition(":")
  make = getattr(importlib.import_module(module), function)
  step = make(**case.options | options)
  step.run()
  return step


@pytest.fixture
def peer(monkeypatch):
  """A stand-in for the peer's package: the same classes, our formula."""
  torch = pytest.importorskip("torch")

  class EppsPulley(torch.nn.Module):
    def __init__(self, t_max=3, n_points=17):
      super().__init__()
      self.t = torch.linspace(0, t_max, n_points)

    def forward(self, x):
      return x.unsqueeze(-1).mul(self.t).cos().mean((-3, -1))

  class SlicingUnivariateTest(torch.nn.Module):
    def __init__(self, test, num_slices):
      super().__init__()
      self.test, self.num_slices = test, num_slices

    def forward(self, x):
      return self.test(x @ torch.randn(x.shape[-1], self.num_slices)).mean()

  modules = {
    "lejepa": {},
    "lejepa.multivariate": {"SlicingUnivariateTest": SlicingUnivariateTest},
    "lejepa.univariate": {},
    "lejepa.univariate.epps_pulley": {"EppsPulley": EppsPulley},
  }
  for name, attributes in modules.items():
    module = type(sys)(name)
    vars(module).update(attributes)
    monkeypatch.setitem(sys.modules, name, module)


@pytest.mark.parametrize("what", sigreg.PARTS)
def test_the_parts_of_sigreg_run(what):
  sigreg.part(6, 3, 4, what).run()


def test_sigreg_cases_run_and_agree():
  first, second = (build(case) for case in sigreg.cases(6, 3, 4, None))
  assert first.check == pytest.approx(second.check, rel=1e-5)


def test_the_operations_of_sigreg_are_counted():
  # Two products of 4x2 and 2x3, each way; 16 for each of 17 knots.
  assert build(sigreg.cases(4, 2, 3, None)[0]).flop == (
    4 * 4 * 2 * 3 + 16 * 4 * 3 * 17
  )


def test_each_way_of_making_views_runs():
  pytest.importorskip("PIL")
  for case in views.cases():
    out = build(case, count=3).run()
    assert out.shape in ((3, 32, 32, 3), (3, 3, 32, 32))
    assert np.isfinite(np.asarray(out)).all()


def test_pils_hue_turns_by_the_given_share_of_a_turn():
  Image = pytest.importorskip("PIL.Image")
  red = Image.new("RGB", (1, 1), (255, 0, 0))
  r, g, b = views._turn(red, 1 / 3).getpixel((0, 0))
  assert g > 250
  assert max(r, b) < 10


@pytest.mark.slow
def test_the_plain_test_is_the_librarys():
  x = jax.random.normal(jax.random.key(0), (9, 4))
  np.testing.assert_allclose(sigreg.plain(x), epps_pulley(x), rtol=1e-5)
  a = random_directions(jax.random.key(1), 4, 3)
  slope = lambda test: jax.grad(lambda x: jnp.sum(test(x @ a)))(x)
  np.testing.assert_allclose(slope(sigreg.plain), slope(epps_pulley), atol=1e-5)


def test_the_peers_cases_of_sigreg_run(peer):
  for case in sigreg.cases(6, 3, 4, "somewhere"):
    if case.peer and not case.options.get("compiled"):
      build(case)


@pytest.mark.slow
def test_a_small_step_runs_on_given_views_and_on_its_own(monkeypatch):
  monkeypatch.setattr(lejepa_sizes, "DEPTH", 1)  # compiles sooner
  _, own, given = lejepa_step.cases(None, gpu=False)
  for case in (own, given):
    assert np.isfinite(build(case, batch=2, hidden=8).run())


def test_the_peers_cases_of_a_step_run(peer):
  for case in lejepa_step.cases("somewhere", gpu=False):
    if case.peer and not case.options.get("compiled"):
      build(case, batch=2, hidden=8)


@pytest.mark.slow
def test_the_peers_network_is_ours():
  torch = pytest.importorskip("torch")
  from benchmarks import torch_vit
  from jlejepa.encoders import make_projector
  from jlejepa.encoders.layers import from_module
  from jlejepa.encoders.vit import Size, ViT

  encoder = from_module(
    ViT(Size(16, 2, 4, 32), 4, 2, 0, "cls", 0.0, 0.0, "float32", "float32", "")
  )
  projector = make_projector(hidden=12, out=5)
  images = jax.random.normal(jax.random.key(0), (6, 8, 8, 3))
  variables = encoder.init(jax.random.key(1), images)
  # Larger than at the start, that no branch is too small to be seen.
  variables["params"] = jax.tree.map(lambda x: 3 * x, variables["params"])
  embedding = encoder.apply(variables, images)[0].embedding
  head = projector.init(jax.random.key(2), embedding)
  z, _ = projector.apply(head, embedding, train=True)

  network = torch_vit.ViT(16, 2, 4, 32, patch=4, image=8)
  mlp = torch_vit.projector(16, 12, 5)
  names = ["hidden0", "hidden0_norm", "", "hidden1", "hidden1_norm", "",
           "output"]  # fmt: skip
  _load(torch, network, variables["params"])
  _load(torch, mlp, {str(i): head["params"].get(name, {})
                     for i, name in enumerate(names)})  # fmt: skip
  with torch.no_grad():
    found = network(torch.from_numpy(np.array(images)))
    np.testing.assert_allclose(found, embedding, atol=2e-5)
    np.testing.assert_allclose(mlp(found), z, atol=1e-4)


def _load(torch, network, params):
  """Copies weights by name; torch keeps a kernel transposed."""
  state = {}
  for path, value in jax.tree_util.tree_leaves_with_path(params):
    name = ".".join(entry.key for entry in path)
    name = name.replace("kernel", "weight").replace("scale", "weight")
    name = name.replace("block", "blocks.")
    value = np.array(value.T if "kernel" in str(path) else value)
    state[name] = torch.from_numpy(value)
  missing, unexpected = network.load_state_dict(state, strict=False)
  assert not unexpected
  assert all("running" in name or "tracked" in name for name in missing)
