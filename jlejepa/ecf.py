"""Epps-Pulley: the empirical characteristic function against a Gaussian's."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np

from jlejepa.circle import cos_sin
from jlejepa.samples import as_samples

# Powers of e^{i step x} that others are made of: with fewer, rounding adds up
# over more steps; with more, they need more memory.
BASE = 8
# Values of a block of samples whose powers a CPU keeps in its cache.
BLOCK = 2**18
MIN_ROWS = 16


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def characteristic_function(
  x: jax.Array, step: float, num_nodes: int
) -> tuple[jax.Array, jax.Array]:
  """Computes the empirical characteristic function on a uniform grid.

  One sine and cosine per sample: those powers of `z = e^{i step x}` that are
  needed follow by complex products. These are the first eight and every eighth,
  as `cos((a + b) t) = 2 cos(a t) cos(b t) - cos((a - b) t)` gives all means.
  Memory is linear in `x` in both directions, and hardly grows with the nodes.
  A GPU takes a sine and a cosine for every node, as it adds them up: compiled
  it holds none of them, but op by op all, `[..., T, N, M]`.

  Args:
    x: float32 `[..., N, M]`.
    step: the grid step; node `k` is at `t = k * step`.
    num_nodes: `T`, nodes `1 .. T`; at `t = 0` the function is 1.

  Returns:
    The means over `N` of `cos(t x)` and `sin(t x)`, each `[..., T, M]`.
  """
  return _forward(x, step, num_nodes)[0]


def _forward(x, step, num_nodes):
  sums = lambda x: _sums(x, step, num_nodes)
  rows = _rows_at_once(x.shape)
  if rows == x.shape[-2]:
    total = sums(x)
  else:

    def add(total, i):
      part = jax.lax.dynamic_slice_in_dim(x, i * rows, rows, axis=-2)
      return jax.tree.map(jnp.add, total, sums(part)), None

    zero = jnp.zeros((*x.shape[:-2], num_nodes, x.shape[-1]))
    blocks = jnp.arange(x.shape[-2] // rows)
    total, _ = jax.lax.scan(add, (zero, zero), blocks)
  return tuple(part / x.shape[-2] for part in total), x


def _sums(x, step, num_nodes):
  if jax.default_backend() == "gpu":
    return _sums_at_once(x, step, num_nodes)
  first = cos_sin(x, step)
  low = [first]
  for k in range(2, min(BASE, num_nodes) + 1):
    low.append(_multiply(low[k // 2 - 1], low[k - k // 2 - 1]))
  add_up = functools.partial(jnp.sum, axis=-2)
  zero = jnp.zeros_like(x[..., 0, :])
  reals = [zero + x.shape[-2], *(add_up(real) for real, _ in low)]
  imags = [zero, *(add_up(imag) for _, imag in low)]
  power = low[-1]
  for a in range(BASE, num_nodes, BASE):
    for b, (cosine, _) in enumerate(low, 1):
      reals.append(2 * add_up(power[0] * cosine) - reals[a - b])
      imags.append(2 * add_up(power[1] * cosine) - imags[a - b])
    power = _multiply(power, low[-1])
  stack = lambda parts: jnp.stack(parts[1 : num_nodes + 1], axis=-2)
  return stack(reals), stack(imags)


def _sums_at_once(x, step, num_nodes):
  """A cosine and a sine for every node, which a GPU has plenty of.

  One kernel adds up all cosines and one all sines. By powers there would be a
  kernel for every other sum.
  """
  nodes = jnp.asarray(step * np.arange(1, num_nodes + 1), jnp.float32)
  angles = nodes[:, None, None] * x[..., None, :, :]
  return jnp.sum(jnp.cos(angles), axis=-2), jnp.sum(jnp.sin(angles), axis=-2)


def _multiply(a, b):
  """The product of two complex numbers, as pairs."""
  return a[0] * b[0] - a[1] * b[1], a[0] * b[1] + a[1] * b[0]


def _backward(step, num_nodes, x, cotangents):
  # Again, which takes less time than to keep and read them.
  first = cos_sin(x, step)
  scale = step / x.shape[-2]
  # dx = Re sum_k k scale (g_sin + i g_cos)_k e^{i k step x}, by Horner.
  total = (jnp.zeros_like(x), jnp.zeros_like(x))
  for k in range(num_nodes, 0, -1):
    g_cos, g_sin = (k * scale * g[..., k - 1, None, :] for g in cotangents)
    total = _multiply((total[0] + g_sin, total[1] + g_cos), first)
  return (total[0],)


def _rows_at_once(shape):
  """Returns how many of the `N` samples to take at once; it divides `N`."""
  *leading, samples, columns = shape
  if jax.default_backend() != "cpu":
    return samples
  rows = max(BLOCK // max(math.prod(leading) * columns, 1), MIN_ROWS)
  # The largest power of two that is no more and leaves no remainder.
  rows = math.gcd(samples, 2 ** (rows.bit_length() - 1))
  return rows if rows >= MIN_ROWS else samples


characteristic_function.defvjp(_forward, _backward)


def _quadrature(t_max, num_points):
  """Gives the step, weights and target of the trapezoid on `[-t_max, t_max]`.

  Weights and target are float64 `[T]` at the nodes `t > 0`. At `t = 0` sample
  and target both are 1, and the half `t < 0` mirrors the other.
  """
  if not t_max > 0:
    raise ValueError(f"t_max must be positive, got {t_max}")
  if num_points < 3 or num_points % 2 == 0:
    raise ValueError(f"num_points must be odd, at least 3, got {num_points}")
  step = float(t_max) / (num_points - 1)
  target = np.exp(-0.5 * (step * np.arange(1, num_points)) ** 2)
  weights = 2 * step * target
  weights[-1] /= 2
  return step, weights, target


def _quadrature_and_parts(x, t_max, num_points):
  step, weights, target = _quadrature(t_max, num_points)
  column = lambda a: jnp.asarray(a, jnp.float32)[:, None]
  real, imag = characteristic_function(as_samples(x), step, num_points - 1)
  return column(weights), column(target), real, imag


def epps_pulley(
  x: jax.Array, *, t_max: float = 3.0, num_points: int = 17
) -> jax.Array:
  """Computes the Epps-Pulley statistic of each column against N(0, 1).

  `N * integral |phi_N(t) - e^{-t^2/2}|^2 e^{-t^2/2} dt` (paper Algorithm 1), by
  the trapezoid rule on `[-t_max, t_max]`. Its mean is 1.0525 for Gaussian
  samples of any `N` (`epps_pulley_null`); a column of zeros gives `0.40205 N`
  and a zero gradient; `|d/dx| <= 5.931` anywhere. Differentiable in reverse
  mode only. Values far apart alias at a period of
  `2 pi (num_points - 1) / t_max`, 33.5 by default and 10 on the paper's grid:
  keep the columns within about half of it.

  Args:
    x: `[..., N, M]`, any floating type; computed in float32.
    t_max: the edge of the integral. The paper's text says 5; its code, and
      measurements, 3.
    num_points: nodes on `[0, t_max]`, odd.

  Returns:
    float32 `[..., M]`.

  Raises:
    ValueError: for a wrong shape, fewer than two samples, a `t_max` that is not
      positive, an even `num_points`.
  """
  weights, target, real, imag = _quadrature_and_parts(x, t_max, num_points)
  distance = (real - target) ** 2 + imag**2
  return x.shape[-2] * jnp.sum(weights * distance, axis=-2)


def epps_pulley_unbiased(
  x: jax.Array, *, t_max: float = 3.0, num_points: int = 17
) -> jax.Array:
  """Computes Epps-Pulley as a U-statistic: mean 0 for Gaussian samples.

  `|phi_N|^2` gives way to `(N |phi_N|^2 - 1) / (N - 1)`, whose mean is
  `|phi|^2` (paper Theorem 6). Arguments, result and errors are those of
  `epps_pulley`; values may be negative.
  """
  weights, target, real, imag = _quadrature_and_parts(x, t_max, num_points)
  n = x.shape[-2]
  power = real**2 + imag**2
  unbiased = power - (1 - power) / (n - 1)
  distance = unbiased - 2 * real * target + target**2
  return n * jnp.sum(weights * distance, axis=-2)


def epps_pulley_null(*, t_max: float = 3.0, num_points: int = 17) -> float:
  """Gives the mean of `epps_pulley` for Gaussian samples: 1.0525 by default.

  `E N |phi_N - phi|^2 = 1 - phi^2` at each node, whatever `N`. Raises
  ValueError as `epps_pulley` does.
  """
  _, weights, target = _quadrature(t_max, num_points)
  return float(np.sum(weights * (1 - target**2)))
