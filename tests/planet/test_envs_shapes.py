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
  hits = caster.cast(origin, rays, rays.T.astype(np.float32))
  geom = hits.geom
  assert_as_single_rays(model, data, origin, rays, hits)
  assert_as_single_rays(model, data, origin, rays, caster.trace(origin, rays))
  # The cheap test may keep too many rays, never too few.
  solid = np.flatnonzero(np.isin(geom, caster.solid))
  kept = caster.near(origin, rays.T.astype(np.float32))
  assert solid.size and np.isin(solid, kept).all()
  assert kept.size < len(rays)


def assert_as_single_rays(model, data, origin, rays, hits):
  groups = np.array([1, 1, 1, 0, 0, 0], np.uint8)
  one, normal = np.zeros(1, np.int32), np.zeros(3)
  for i, ray in enumerate(rays):
    expected = mujoco.mj_ray(
      model, data, origin, ray, groups, 1, -1, one, normal
    )
    assert hits.geom[i] == one[0]
    if one[0] >= 0:
      np.testing.assert_allclose(hits.distance[i], expected, rtol=1e-5)
      np.testing.assert_allclose(hits.normal[:, i], normal, atol=1e-5)


@pytest.mark.parametrize("height", [1.0, -1.0])
def test_planes_end_where_mujoco_says(height):
  """A tilted floor without end, small ones above and below it, and a ball."""
  model = mujoco.MjModel.from_xml_string("""
    <mujoco><asset>
      <material name="glass" rgba="1 1 1 0"/>
      <material name="stone" rgba="1 1 1 1"/>
    </asset><worldbody>
      <geom type="plane" size="0 0 1" euler="10 5 0"/>
      <geom type="plane" size="1 .5 1" pos=".3 .2 .4" euler="0 20 30"/>
      <geom type="plane" size="1 0 1" pos="-1 -1 -.5"/>
      <geom type="plane" size="1 1 1" pos="0 0 .6" group="3"/>
      <geom type="plane" size="9 9 1" pos="0 0 .7" rgba="1 1 1 0"/>
      <geom type="plane" size="1 1 1" pos="1 1 .65" rgba="1 1 1 0"
            material="stone"/>
      <geom type="plane" size="9 9 1" pos="0 0 .7" rgba="1 1 1 0"
            material="glass"/>
      <geom type="sphere" size=".3" pos="-.8 -.7 .5"/>
    </worldbody></mujoco>""")
  data = mujoco.MjData(model)
  mujoco.mj_forward(model, data)
  origin = np.array([0.1, 0.2, height])
  rays = np.random.RandomState(1).randn(3000, 3)
  rays /= np.linalg.norm(rays, axis=1, keepdims=True)
  caster = Caster(model, data, len(rays))
  hits = caster.cast(origin, rays, rays.T.astype(np.float32))
  assert_as_single_rays(model, data, origin, rays, hits)
  found = {int(geom) for geom in hits.geom}
  assert found == ({-1, 0, 1, 2, 5, 7} if height > 0 else {-1, 7})


@pytest.mark.parametrize("origin", [[4.8, 0.3, 0.2], [0.0, -0.5, 1.2]])
def test_a_wall_is_seen_from_within_the_ball_around_it(origin):
  model = mujoco.MjModel.from_xml_string("""
    <mujoco><worldbody>
      <geom type="plane" size="0 0 1" pos="0 0 -1"/>
      <geom type="box" size="5 .1 1"/>
    </worldbody></mujoco>""")
  data = mujoco.MjData(model)
  mujoco.mj_forward(model, data)
  rays = np.random.RandomState(1).randn(1000, 3)
  rays /= np.linalg.norm(rays, axis=1, keepdims=True)
  caster = Caster(model, data, len(rays))
  hits = caster.cast(np.array(origin), rays, rays.T.astype(np.float32))
  assert_as_single_rays(model, data, np.array(origin), rays, hits)
  assert (hits.geom == 1).sum() > 100
