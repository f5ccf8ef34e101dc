import functools
import math
import os
import pathlib
import subprocess
import sys
import textwrap

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jlejepa

ROOT = pathlib.Path(__file__).parents[2]
sigreg = jax.jit(
  jlejepa.sigreg, static_argnames=("num_slices", "t_max", "num_points", "test")
)


def run_python(code, **environment):
  """Runs a script in a fresh interpreter that sees this repository."""
  done = subprocess.run(
    [sys.executable, "-c", textwrap.dedent(code)],
    env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
    capture_output=True,
    text=True,
    timeout=300,
  )
  assert done.returncode == 0, done.stderr[-2000:]


def test_importing_the_package_is_light():
  run_python(
    """
    import sys
    import jlejepa
    import jlejepa.runtime
    heavy = {"jax", "flax", "scipy", "numpy", "jlejepa.ecf"} & set(sys.modules)
    assert not heavy - {"jax", "numpy"}, heavy
    assert "sigreg" in dir(jlejepa)
    assert callable(jlejepa.univariate.watson)
    assert callable(jlejepa.sigreg) and callable(jlejepa.epps_pulley)
    assert callable(jlejepa.multivariate.bhep)
    assert callable(jlejepa.sigreg) and callable(jlejepa.epps_pulley)
    try:
      jlejepa.nothing
    except AttributeError as error:
      assert "nothing" in str(error)
    else:
      raise AssertionError("an unknown name was found")
    """
  )


@pytest.mark.slow
def test_is_the_mean_over_views_on_the_same_directions():
  z = jax.random.normal(jax.random.key(0), (3, 20, 6)) * 1.5
  key = jax.random.key(1)
  by_view = [sigreg(view, key, num_slices=32) for view in z]
  value = sigreg(z, key, num_slices=32)
  np.testing.assert_allclose(value, np.mean(by_view), rtol=1e-5)
  a = jlejepa.random_directions(key, 6, 32)
  given = jlejepa.sliced(jax.jit(jlejepa.epps_pulley), z, a)
  np.testing.assert_allclose(given, value, rtol=1e-5)


def test_gaussian_embeddings_give_the_null_and_others_more():
  key = jax.random.key(2)
  z = jax.random.normal(jax.random.key(3), (200, 64, 8))
  value = functools.partial(sigreg, key=key, num_slices=64)
  null = value(z)
  assert null == pytest.approx(1.0525, abs=0.05)
  assert value(0.5 * z) > 2 * null
  assert value(z + 1.0) > 2 * null
  assert value(z * jnp.linspace(0.1, 2, 8)) > 1.3 * null


def test_rotating_the_embeddings_moves_it_only_by_chance():
  z = jax.random.laplace(jax.random.key(4), (50, 5)) * jnp.arange(1.0, 6.0)
  rotation = np.linalg.qr(np.random.default_rng(0).normal(size=(5, 5)))[0]
  keys = jax.random.split(jax.random.key(5), 200)
  many = jax.jit(
    jax.vmap(
      functools.partial(jlejepa.sigreg, num_slices=16), in_axes=(None, 0)
    )
  )
  plain, rotated = many(z, keys), many(z @ np.float32(rotation), keys)
  error = jnp.sqrt((jnp.var(plain) + jnp.var(rotated)) / len(keys))
  assert abs(jnp.mean(plain) - jnp.mean(rotated)) < 4 * error
  np.testing.assert_allclose(
    jnp.mean(jlejepa.sigreg_exact(z)),
    jlejepa.sigreg_exact(z @ np.float32(rotation)),
    rtol=1e-4,
  )


def test_no_gradient_flows_to_the_directions():
  z = jax.random.normal(jax.random.key(0), (8, 3))
  a = jlejepa.random_directions(jax.random.key(1), 3, 4)
  gradient = jax.grad(lambda a: jlejepa.sliced(jlejepa.epps_pulley, z, a))(a)
  assert np.all(gradient == 0)


def _products(jaxpr):
  """The matrix products of a program, those of its inner programs too."""
  for equation in jaxpr.eqns:
    if equation.primitive.name == "dot_general":
      yield equation
    for value in jax.tree.leaves(list(equation.params.values())):
      inner = getattr(value, "jaxpr", value)
      if hasattr(inner, "eqns"):
        yield from _products(inner)


@pytest.mark.parametrize(
  "function",
  [
    lambda z, key: jlejepa.sigreg(z, key, num_slices=4),
    lambda z, key: jlejepa.lejepa_loss(z, key, num_global=1, num_slices=4)[0],
    lambda z, key: jlejepa.sigreg_exact(z),
  ],
  ids=["sigreg", "lejepa_loss", "sigreg_exact"],
)
def test_every_product_is_at_the_highest_precision_both_ways(function):
  # An accelerator multiplies in fewer bits by default, which no value that a
  # CPU computes would show.
  z, key = jnp.zeros((2, 8, 3), jnp.bfloat16), jax.random.key(0)
  find = lambda f: list(_products(jax.make_jaxpr(f)(z, key).jaxpr))
  forward, both = find(function), find(jax.value_and_grad(function))
  assert 0 < len(forward) < len(both)
  highest = jax.lax.Precision.HIGHEST
  for product in forward + both:
    assert product.params["precision"] == (highest, highest)
    assert {x.aval.dtype for x in product.invars} == {jnp.dtype("float32")}


@pytest.mark.slow
def test_takes_any_univariate_test():
  z = jax.random.normal(jax.random.key(0), (16, 3))
  key = jax.random.key(1)
  for name in jlejepa.univariate.__all__:
    test = getattr(jlejepa.univariate, name)
    value = jlejepa.sigreg(z, key, num_slices=4, test=test)
    expected = test(z @ jlejepa.random_directions(key, 3, 4)).mean()
    np.testing.assert_allclose(value, expected, rtol=1e-4)


def test_unbiased_form_has_mean_zero_and_differs_by_its_correction():
  z = jax.random.normal(jax.random.key(6), (400, 16, 4))
  unbiased = jax.jit(functools.partial(jlejepa.sigreg_unbiased, num_slices=16))(
    z, jax.random.key(7)
  )
  assert unbiased == pytest.approx(0, abs=0.06)


def test_minimal_example_of_the_paper_is_reproduced(reference):
  z, a = (reference.arrays[f] for f in ("x_views_4x64x16", "A_16x256"))
  values = reference.values["sigreg_minimal"]
  sliced = functools.partial(jlejepa.sliced, jax.jit(jlejepa.epps_pulley))
  np.testing.assert_allclose(
    sliced(z, a), values["per_view_then_mean"], rtol=2e-6
  )
  np.testing.assert_allclose(
    [sliced(view, a) for view in z], values["per_view"], rtol=2e-6
  )


@pytest.mark.parametrize("scale", [0.0, 1e-6, 1.0, 1e6])
def test_values_and_gradients_are_finite_at_every_scale(scale):
  z = scale * jax.random.normal(jax.random.key(0), (16, 4))
  value, gradient = jax.jit(
    jax.value_and_grad(functools.partial(jlejepa.sigreg, num_slices=8))
  )(z, jax.random.key(1))
  assert np.isfinite(value)
  assert np.all(np.isfinite(gradient))
  if scale == 0:
    assert value == pytest.approx(16 * 0.40204758, rel=1e-5)
    assert math.isclose(float(jnp.abs(gradient).max()), 0)


@pytest.mark.slow
def test_low_precision_embeddings_lose_nothing_after_the_cast():
  z = jax.random.normal(jax.random.key(0), (2, 16, 8), jnp.bfloat16)
  key = jax.random.key(1)
  value = sigreg(z, key, num_slices=16)
  assert value.dtype == jnp.float32
  assert value == sigreg(z.astype(jnp.float32), key, num_slices=16)
  gradient = jax.grad(lambda z: jlejepa.sigreg(z, key, num_slices=16))(z)
  assert gradient.dtype == jnp.bfloat16


@pytest.mark.parametrize(
  "call, message",
  [
    (lambda z, k: jlejepa.sigreg(z[0], k), "shape"),
    (lambda z, k: jlejepa.sigreg(z[:1], k), "at least 2 samples"),
    (lambda z, k: jlejepa.sigreg(z, k, num_points=16), "odd"),
    (lambda z, k: jlejepa.sigreg(z, k, num_slices=0), "num_slices"),
    (lambda z, k: jlejepa.sigreg_unbiased(z[:1], k), "at least 2 samples"),
    (lambda z, k: jlejepa.sigreg_exact(z[:1]), "at least 2 samples"),
    (
      lambda z, k: jlejepa.sliced(jlejepa.epps_pulley, z, jnp.ones((4, 2))),
      "directions need shape",
    ),
  ],
)
def test_bad_input_is_named(call, message):
  with pytest.raises(ValueError, match=message):
    call(jnp.zeros((5, 3)), jax.random.key(0))


@pytest.mark.slow
def test_eight_devices_give_the_value_and_gradient_of_one():
  # Under jit with a sharded batch the means are global: a mean per device, or
  # a factor of the device count in the gradient, would show.
  run_python(
    """
    import jax, jax.numpy as jnp, numpy as np
    from jax.sharding import AxisType, NamedSharding, PartitionSpec
    import jlejepa
    assert jax.device_count() == 8
    z = 0.4 * jax.random.normal(jax.random.key(0), (2, 32, 6)) + 0.2
    key = jax.random.key(1)
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    for test in (None, jlejepa.univariate.anderson_darling):
      loss = jax.jit(jax.value_and_grad(
        lambda z, key: jlejepa.lejepa_loss(
          z, key, num_global=1, num_slices=16, test=test, lam=0.3)[0]))
      value, gradient = loss(z, key)
      for spec in (PartitionSpec(None, "data"),
                   PartitionSpec(None, None, None)):
        sharded = jax.device_put(z, NamedSharding(mesh, spec))
        many, many_gradient = loss(sharded, key)
        np.testing.assert_allclose(many, value, rtol=2e-6)
        np.testing.assert_allclose(many_gradient, gradient, atol=1e-7)
    """,
    XLA_FLAGS="--xla_force_host_platform_device_count=8",
    JAX_PLATFORMS="cpu",
  )
