import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jplanet.optimizer import make_optimizer, scale_by_tf1_adam


def run(optimizer, params, grads):
  """Applies a list of gradients; returns the parameters after each."""
  state, after = optimizer.init(params), []
  update = jax.jit(optimizer.update)
  for grad in grads:
    updates, state = update(grad, state, params)
    params = optax.apply_updates(params, updates)
    after.append(params)
  return after


def tf1_adam(grads, lr, eps, b1=0.9, b2=0.999):
  """TensorFlow 1's AdamOptimizer in float64, from its documentation."""
  w, m, v = 0.0, 0.0, 0.0
  path = []
  for t, g in enumerate(np.float64(grads), start=1):
    m = b1 * m + (1 - b1) * g
    v = b2 * v + (1 - b2) * g**2
    w = w - lr * np.sqrt(1 - b2**t) / (1 - b1**t) * m / (np.sqrt(v) + eps)
    path.append(w)
  return np.array(path)


@pytest.mark.parametrize(
  "grad, tf1, standard",
  [
    # The first step has m = 0.1 g and v = 0.001 g^2. Standard Adam moves by
    # lr * g / (g + eps), TF1 by lr * g / (g + eps / sqrt(0.001)): for g = 1e-3
    # that is 1e-3 * 1e-3 / (1e-3 + 3.16228e-3).
    (1e-5, 3.1523e-6, 9.0909e-5),
    (1e-4, 3.0653e-5, 5.0e-4),
    (1e-3, 2.40253e-4, 9.0909e-4),
    (1e-2, 7.59747e-4, 9.90099e-4),
  ],
)
def test_first_step_of_both_forms_known_answers(grad, tf1, standard):
  for form, expected in (("tf1", tf1), ("standard", standard)):
    optimizer = make_optimizer(1e-3, eps=1e-4, eps_form=form)
    (after,) = run(optimizer, jnp.zeros(1), [jnp.full(1, grad)])
    np.testing.assert_allclose(after, [-expected], rtol=2e-5)


def test_tf1_form_follows_a_float64_reference_for_many_steps():
  grads = np.random.default_rng(0).normal(size=(300, 4)) * [1e-6, 1e-4, 0.1, 10]
  optimizer = make_optimizer(1e-3, eps=1e-4, clip_norm=None)
  path = run(optimizer, jnp.zeros(4), list(jnp.float32(grads)))
  np.testing.assert_allclose(
    np.stack(path), tf1_adam(grads, 1e-3, 1e-4), rtol=2e-3, atol=1e-8
  )


def test_tf1_form_is_the_standard_one_with_a_shrinking_epsilon():
  # At t = 1 epsilon is 1e-4 / sqrt(0.001) = 3.16e-3.
  grad = jnp.array([2e-3])
  ours, _ = (tx := scale_by_tf1_adam(eps=1e-4)).update(grad, tx.init(grad))
  standard = optax.scale_by_adam(eps=1e-4 / np.sqrt(0.001))
  theirs, _ = standard.update(grad, standard.init(grad))
  np.testing.assert_allclose(ours, theirs, rtol=1e-5)


def test_clipping_is_by_the_norm_of_all_parameters_together():
  # Norm 5000 over both leaves, clipped to 1000: a fifth of each. A clip per
  # leaf would give (1, 1) of its own; per element the same. Adam hides scale,
  # so its epsilon is made large: step = lr * g / (g + eps) by then.
  grads = {"a": jnp.array([3000.0]), "b": jnp.array([4000.0])}
  optimizer = make_optimizer(1.0, eps=1000.0, eps_form="standard")
  (after,) = run(optimizer, jax.tree.map(jnp.zeros_like, grads), [grads])
  np.testing.assert_allclose(after["a"], [-600 / 1600], rtol=1e-5)
  np.testing.assert_allclose(after["b"], [-800 / 1800], rtol=1e-5)


def test_gradients_under_the_clip_are_left_alone():
  grads = {"a": jnp.array([300.0]), "b": jnp.array([400.0])}
  zeros = jax.tree.map(jnp.zeros_like, grads)
  settings = dict(eps=1000.0, eps_form="standard")
  clipped = run(make_optimizer(1.0, **settings), zeros, [grads])
  free = run(make_optimizer(1.0, clip_norm=None, **settings), zeros, [grads])
  np.testing.assert_array_equal(clipped[0]["a"], free[0]["a"])
  np.testing.assert_allclose(free[0]["b"], [-400 / 1400], rtol=1e-5)


def test_warmup_rises_linearly_and_then_stays():
  # Adam's step for a constant gradient and no epsilon is the learning rate.
  optimizer = make_optimizer(0.1, eps=1e-12, warmup_updates=4)
  path = np.array(run(optimizer, jnp.zeros(1), [jnp.ones(1)] * 6)).ravel()
  steps = -np.diff(path, prepend=0)
  np.testing.assert_allclose(
    steps, [0.025, 0.05, 0.075, 0.1, 0.1, 0.1], rtol=1e-4
  )


def test_weight_decay_touches_matrices_only():
  params = {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)}
  grads = jax.tree.map(jnp.zeros_like, params)
  optimizer = make_optimizer(0.1, weight_decay=0.5)
  (after,) = run(optimizer, params, [grads])
  np.testing.assert_allclose(after["kernel"], 0.95)
  np.testing.assert_array_equal(after["bias"], 1.0)


def test_update_compiles_once():
  optimizer = make_optimizer(1e-3, warmup_updates=3)
  params = {"w": jnp.ones((3, 2))}
  state = optimizer.init(params)

  @jax.jit
  def step(params, state):
    grads = jax.tree.map(jnp.ones_like, params)
    updates, state = optimizer.update(grads, state, params)
    return optax.apply_updates(params, updates), state

  for _ in range(3):
    params, state = step(params, state)
  assert step._cache_size() == 1


@pytest.mark.parametrize("form", ["tf1", "standard"])
def test_no_two_parts_of_the_state_share_a_buffer(form):
  # A train step donates the state; one buffer cannot be donated twice.
  state = make_optimizer(1e-3, eps_form=form).init({"w": jnp.ones((3, 2))})
  leaves = jax.tree.leaves(state)
  assert len({x.unsafe_buffer_pointer() for x in leaves}) == len(leaves)


def test_unknown_epsilon_form_is_refused():
  with pytest.raises(ValueError, match=r"'tf1'.*'standard'.*'hat'"):
    make_optimizer(1e-3, eps_form="hat")
