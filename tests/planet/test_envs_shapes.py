"""The ray caster's geometry against MuJoCo's."""

import mujoco
import numpy as np
import pytest

from jplanet.envs import TASKS, make_env, shapes
from jplanet.envs.casting import Caster

RNG = np.random.RandomState(0)
SIZES = {
  "sphere": ([0.3, 0, 0], [0.3, 0.3, 0.3], shapes.ellipsoid),
  "ellipsoid": ([0.3, 0.2, 0.5], [0.3, 0.2, 0.5], shapes.ellipsoid),
  "capsule": ([0.2, 0.4, 0], [0.2, 0.2, 0.4], shapes.capsule),
  "cylinder": ([0.2, 0.4, 0], [0.2, 0.2, 0.4], shapes.cylinder),
  "box": ([0.3, 0.2, 0.5], [0.3, 0.2, 0.5], shapes.box),
}


@pytest.mark.parametrize("kind", SIZES)
def test_rays_meet_shapes_where_mujoco_says(kind):
  size, drawn, meet = SIZES[kind]
  code = int(getattr(mujoco.mjtGeom, f"mjGEOM_{kind.upper()}"))
  hits = 0
  for _ in range(20):
    origin = RNG.randn(3)
    origin *= 1.5 / np.linalg.norm(origin)
    rays = RNG.randn(3, 40) * 0.3 - origin[:, None]
    rays /= np.linalg.norm(rays, axis=0)
    distance, normal = meet(np.array(drawn), origin, rays)
    for i in range(rays.shape[1]):
      ray = rays[:, i].copy()
      theirs = np.zeros(3)
      expected = mujoco.mju_rayGeom(
        np.zeros(3), np.eye(3).ravel(), np.array(size), origin, ray, code,
        theirs,
      )  # fmt: skip
      if expected < 0:
        assert np.isinf(distance[i])
      else:
        hits += 1
        np.testing.assert_allclose(distance[i], expected, rtol=1e-5)
        np.testing.assert_allclose(normal[:, i], theirs, atol=1e-4)
  assert hits > 200


@pytest.mark.parametrize("task", TASKS)
def test_bundles_hit_what_single_rays_hit(task):
  env = make_env(task, size=16, renderer="ray")
  env.seed(1)
  env.reset()
  for _ in range(5):
    env.step(np.full(env.action_spec().shape, 0.5))
  model, data = env.physics.model.ptr, env.physics.data.ptr
  caster = Caster(model, data, 1024)
  env._draw.render()
  origin, rays = env._draw._eye, env._draw._bundle
  geom, distance, _ = caster.cast(origin, rays)
  groups = np.array([1, 1, 1, 0, 0, 0], np.uint8)
  one = np.zeros(1, np.int32)
  for i, ray in enumerate(rays):
    expected = mujoco.mj_ray(model, data, origin, ray, groups, 1, -1, one)
    assert geom[i] == one[0]
    np.testing.assert_allclose(distance[i], expected, rtol=1e-5)
  # The cheap test may keep too many rays, never too few.
  solid = np.flatnonzero(np.isin(geom, caster.solid))
  kept = caster.near(origin, rays.T.astype(np.float32))
  assert solid.size and np.isin(solid, kept).all()
  assert kept.size < len(rays)
