"""The optimiser of the paper.

At the paper's epsilon of 1e-4 the two ways to write Adam differ by up to a
factor of 29 in the first steps of small gradients, which acts as a warm-up:

  TensorFlow 1:  w -= lr * sqrt(1 - b2^t) / (1 - b1^t) * m / (sqrt(v) + eps)
  the textbook:  w -= lr * (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + eps)

The first is the second with eps / sqrt(1 - b2^t) for its epsilon: 3.2e-3 in
the first update, 1.3e-4 in the thousandth. PlaNet was trained with the first.
"""

import jax
import jax.numpy as jnp
import optax

from jlejepa.optimizers import is_matrix


def make_optimizer(
  learning_rate: float,
  *,
  eps: float = 1e-4,
  eps_form: str = "tf1",
  clip_norm: float | None = 1000.0,
  warmup_updates: int = 0,
  b1: float = 0.9,
  b2: float = 0.999,
  weight_decay: float = 0.0,
) -> optax.GradientTransformation:
  """Makes Adam with a clipped global norm (paper, appendix A).

  Args:
    learning_rate: step size after the warm-up.
    eps: Adam's epsilon.
    eps_form: "tf1" as PlaNet was trained, "standard" as in the Adam paper.
    clip_norm: the largest global norm of the gradient over all parameters
      together; `None` does not clip.
    warmup_updates: updates over which the step size rises linearly, the first
      taking `1 / warmup_updates` of it. The first release of PlaNet used 200.
    b1: decay of the first moment.
    b2: decay of the second moment.
    weight_decay: decoupled decay (AdamW) of arrays with two or more axes, a
      share of `learning_rate` per update.

  Returns:
    A gradient transformation.

  Raises:
    ValueError: `eps_form` is neither form.
  """
  if eps_form not in ("tf1", "standard"):
    raise ValueError(
      f"eps_form must be 'tf1' (as PlaNet) or 'standard', got {eps_form!r}"
    )
  adam = scale_by_tf1_adam if eps_form == "tf1" else optax.scale_by_adam
  stages = [adam(b1=b1, b2=b2, eps=eps)]
  if clip_norm is not None:
    stages.insert(0, optax.clip_by_global_norm(clip_norm))
  if weight_decay:
    stages.append(optax.add_decayed_weights(weight_decay, mask=is_matrix))
  if warmup_updates:
    ramp = lambda count: jnp.minimum(1.0, (count + 1) / warmup_updates)
    stages.append(optax.scale_by_schedule(ramp))
  stages.append(optax.scale(-learning_rate))
  return optax.chain(*stages)


def scale_by_tf1_adam(
  b1: float = 0.9, b2: float = 0.999, eps: float = 1e-4
) -> optax.GradientTransformation:
  """Rescales gradients as TensorFlow 1's Adam does, with "epsilon hat".

  u_t = sqrt(1 - b2^t) / (1 - b1^t) * m_t / (sqrt(v_t) + eps), where
  m_t = b1 m_(t-1) + (1 - b1) g_t and v_t = b2 v_(t-1) + (1 - b2) g_t^2
  (Kingma and Ba 2015, the remark before section 2.1).

  Args:
    b1: decay of the first moment m.
    b2: decay of the second moment v.
    eps: added to sqrt(v) before the correction of its bias.

  Returns:
    A gradient transformation, whose state is that of `optax.scale_by_adam`.
  """

  def init(params):
    # Two trees: a buffer in both could not be donated.
    zeros = lambda: jax.tree.map(jnp.zeros_like, params)
    return optax.ScaleByAdamState(
      count=jnp.zeros([], jnp.int32), mu=zeros(), nu=zeros()
    )

  def update(grads, state, params=None):
    del params
    count = optax.safe_increment(state.count)
    mu = jax.tree.map(lambda m, g: b1 * m + (1 - b1) * g, state.mu, grads)
    nu = jax.tree.map(lambda v, g: b2 * v + (1 - b2) * g * g, state.nu, grads)
    scale = jnp.sqrt(1 - b2**count) / (1 - b1**count)
    step = lambda m, v: (scale * m / (jnp.sqrt(v) + eps)).astype(m.dtype)
    updates = jax.tree.map(step, mu, nu)
    return updates, optax.ScaleByAdamState(count=count, mu=mu, nu=nu)

  return optax.GradientTransformation(init, update)
