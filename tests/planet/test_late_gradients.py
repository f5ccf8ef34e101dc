"""A scan whose weights get their gradient from all steps at once."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jplanet.late_gradients import scan_states

STEPS, WIDTH, INPUT = 5, 4, 3


def step(weights, state, x):
  a, b, bias = weights
  memory, read = state
  memory = jnp.tanh(memory @ a + x @ b + bias)
  return memory, memory[:2] * x[0] + read


def plain(weights, first, inputs):
  def advance(state, x):
    state = step(weights, state, x)
    return state, state

  return jax.lax.scan(advance, first, inputs)[1]


def late(weights, first, inputs):
  return scan_states(step, weights, first, inputs)


def example(seed=0, steps=STEPS, batch=()):
  rng = np.random.default_rng(seed)
  draw = lambda *shape: jnp.asarray(rng.normal(size=shape), jnp.float32)
  weights = draw(WIDTH, WIDTH), draw(INPUT, WIDTH), draw(WIDTH)
  first = draw(*batch, WIDTH), draw(*batch, 2)
  return weights, first, draw(*batch, steps, INPUT)


def loss(run):
  def value(*args):
    memory, read = run(*args)
    # Unlike weights for unlike steps, so that none can stand for another.
    times = jnp.arange(1.0, memory.shape[-2] + 1)[:, None]
    return jnp.sum(times * jnp.cos(memory)) + jnp.sum(times * read**2)

  return value


def close(a, b):
  for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
    np.testing.assert_allclose(x, y, atol=2e-5 * np.abs(x).max())


@pytest.mark.parametrize("steps", [1, STEPS])
def test_states_and_gradients_are_those_of_a_scan(steps):
  args = example(steps=steps)
  for a, b in zip(plain(*args), late(*args), strict=True):
    np.testing.assert_array_equal(a, b)
  gradients = lambda run: jax.grad(loss(run), argnums=(0, 1, 2))(*args)
  expected = gradients(plain)
  assert all((x != 0).any() for x in jax.tree.leaves(expected))
  close(expected, gradients(late))


def test_a_batch_of_sequences_shares_its_weights():
  weights, *sequences = example(batch=(3,))

  def gradients(run):
    batched = jax.vmap(run, in_axes=(None, 0, 0))
    return jax.jit(jax.grad(loss(batched), argnums=(0, 1, 2)))(
      weights, *sequences
    )

  close(gradients(plain), gradients(late))


def test_no_step_multiplies_for_the_gradient_of_a_weight():
  args = example()
  product = f"f32[{WIDTH},{WIDTH}] = dot_general"

  def in_scans_and_outside(run):
    jaxpr = jax.make_jaxpr(jax.grad(loss(run)))(*args)
    scans = [e for e in jaxpr.eqns if e.primitive.name == "scan"]
    inside = sum(str(e.params["jaxpr"]).count(product) for e in scans)
    return len(scans), inside, str(jaxpr).count(product) - inside

  assert in_scans_and_outside(late) == (2, 0, 1)
  assert in_scans_and_outside(plain) == (2, 1, 0)


def test_the_gradient_can_be_differentiated():
  weights, first, inputs = example()

  def curvature(run):
    slope = jax.grad(lambda w, x: loss(run)(w, first, x))
    along = lambda x: sum(
      jnp.vdot(w, g) for w, g in zip(weights, slope(weights, x))
    )
    return jax.grad(along)(inputs)

  assert np.abs(curvature(plain)).max() > 1
  close(curvature(plain), curvature(late))


def test_no_steps_are_no_states():
  memory, read = late(*example(steps=0))
  assert memory.shape == (0, WIDTH) and read.shape == (0, 2)
