"""The ray caster: colours by hand, and whole pictures against OpenGL."""

import types

import mujoco
import numpy as np
import pytest

from jplanet.envs import TASKS, make_env, renderers
from jplanet.envs.ray import RayRenderer


def scene(body, *, visual="", asset="", size=32, tendon="", supersample=1):
  """Renders a world seen from 2 m above, north up, 2 m wide on the ground."""
  # 2 atan(1 / 2): the tangent of half the field of view is one half.
  xml = f"""<mujoco>
    <visual>
      <headlight ambient="0.5 0.5 0.5" diffuse="0 0 0" specular="0 0 0"/>
      {visual}
    </visual>
    <asset>{asset}</asset>
    <worldbody>
      <camera pos="0 0 2" fovy="{2 * np.degrees(np.arctan(0.5))}"/>
      {body}
    </worldbody>
    {tendon}
  </mujoco>"""
  model = mujoco.MjModel.from_xml_string(xml)
  data = mujoco.MjData(model)
  mujoco.mj_forward(model, data)
  physics = types.SimpleNamespace(
    model=types.SimpleNamespace(ptr=model),
    data=types.SimpleNamespace(ptr=data),
  )
  return RayRenderer(physics, size=size, supersample=supersample)


def picture(*args, **kwargs):
  return scene(*args, **kwargs).render().astype(int)


def near(image, row, column, color, tolerance=1):
  got = image[row, column]
  expected = np.round(np.array(color) * 255)
  assert np.abs(got - expected).max() <= tolerance, (got, expected)


FLOOR = "<geom type='plane' size='5 5 1' rgba='.2 .4 .8 1'/>"


def test_ambient_light_dims_the_geoms_own_colour():
  image = picture(FLOOR)
  # Ambient 0.5 times the colour, everywhere alike.
  near(image, 3, 20, [0.1, 0.2, 0.4])
  assert image.reshape(-1, 3).std(0).max() == 0


def test_what_a_task_changes_is_seen_in_the_next_picture():
  paint = "<material name='paint' rgba='0 1 0 1'/>"
  ball = "<geom type='sphere' size='.2' pos='-.5 0 0' material='paint'/>"
  renderer = scene(FLOOR + ball, asset=paint)
  model, data = renderer._model, renderer._data
  here, there = (16, 8), (16, 24)
  near(renderer.render().astype(int), *here, [0, 0.5, 0])
  model.mat_rgba[0] = [1, 0, 0, 1]
  near(renderer.render().astype(int), *here, [0.5, 0, 0])
  # A geom's own colour wins over its material's.
  model.geom_rgba[1] = [0, 0, 1, 1]
  near(renderer.render().astype(int), *here, [0, 0, 0.5])
  model.geom_pos[1] = [0.5, 0, 0]
  mujoco.mj_forward(model, data)
  image = renderer.render().astype(int)
  near(image, *there, [0, 0, 0.5])
  near(image, *here, [0.1, 0.2, 0.4])
  model.geom_size[1, 0] = 0.6
  near(renderer.render().astype(int), 16, 16, [0, 0, 0.5])


def test_the_picture_lies_as_the_camera_sees_it():
  # x is to the right and y is up; the ground shown spans [-1, 1].
  image = picture(
    "<geom type='box' pos='.5 .75 0' size='.125 .0625 .01' rgba='1 1 1 1'/>"
  )
  rows, columns = np.nonzero(image[:, :, 0])
  # 32 pixels over 2 m are 16 a metre; y in [.6875, .8125] is 3 to 5 pixels
  # below the upper edge, x in [.375, .625] is 22 to 26 from the left.
  assert (rows.min(), rows.max()) == (3, 4)
  assert (columns.min(), columns.max()) == (22, 25)


def test_diffuse_light_falls_with_the_cosine():
  # A directional light at 60 degrees from the vertical: cos 60 = 1/2, times
  # its diffuse 0.6, plus the headlight's ambient 0.5: 0.8 of the colour.
  light = (
    "<light type='directional' dir='0.8660254 0 -0.5' diffuse='.6 .6 .6' "
    "specular='0 0 0'/>"
  )
  near(picture(FLOOR + light), 16, 16, [0.16, 0.32, 0.64])


def test_light_past_white_is_clipped_in_each_pass():
  # The headlight's pass clips at 1; a light that casts shadows is another
  # pass, so that 0.5 + 0.25 is reached but 3 * 0.5 never passes 1.
  light = (
    "<light type='directional' dir='0 0 -1' diffuse='3 3 3' specular='0 0 0' "
    "castshadow='{}'/>"
  )
  white = "<geom type='plane' size='5 5 1' rgba='.1 .2 1 1'/>"
  # One pass: clip(c * 3.5). Two: clip(c / 2) + clip(3 c), clipped.
  one = picture(white + light.format("false"))
  two = picture(white + light.format("true"))
  near(one, 5, 5, [0.35, 0.7, 1.0])
  near(two, 5, 5, [0.35, 0.7, 1.0])


def test_things_cast_shadows_where_the_light_does_not_reach():
  # From the upper left at 45 degrees: a box 0.2 m up throws its shadow 0.2 m
  # to the right. Lit ground: 0.5 + 0.4 cos 45; shaded ground: 0.5.
  light = (
    "<light type='directional' pos='0 0 3' dir='1 0 -1' diffuse='.4 .4 .4' "
    "specular='0 0 0'/>"
  )
  box = "<geom type='box' pos='-.5 0 .5' size='.1 .1 .01' rgba='1 0 0 1'/>"
  image = picture(FLOOR + light + box, size=64)
  lit = 0.5 + 0.4 * np.cos(np.pi / 4)
  near(image, 5, 60, [0.2 * lit, 0.4 * lit, 0.8 * lit])
  # x = 0, y = 0 is half a metre to the right of the box.
  near(image, 32, 32, [0.1, 0.2, 0.4])
  near(image, 32, 45, [0.2 * lit, 0.4 * lit, 0.8 * lit])


def test_a_spot_light_has_a_cone():
  light = (
    "<light type='spot' pos='0 0 1' dir='0 0 -1' diffuse='.4 .4 .4' "
    "specular='0 0 0' cutoff='30' exponent='0'/>"
  )
  image = picture(FLOOR + light, size=64)
  # tan 30 = 0.577: inside at 0.05 m, outside at 0.7 m.
  distance = np.hypot(1 / 64, 1 / 64)
  lit = 0.5 + 0.4 / np.hypot(1, distance)
  near(image, 32, 32, [0.2 * lit, 0.4 * lit, 0.8 * lit])
  near(image, 32, 56, [0.1, 0.2, 0.4])


def test_a_mirror_adds_what_stands_over_it():
  asset = (
    "<material name='mirror' reflectance='.5' rgba='0 0 .5 1' specular='0'/>"
  )
  floor = "<geom type='plane' size='5 5 1' material='mirror'/>"
  # Beside the camera's axis and high above: seen from the mirrored camera at
  # z = -2, (.5, 0, 1) lies towards x / (z + 2) = 1/6, so x = 1/3 on the floor.
  ball = "<geom type='sphere' pos='.5 0 1' size='.1' rgba='1 0 0 1'/>"
  image = picture(floor + ball, asset=asset, size=64)
  near(image, 32, 10, [0, 0, 0.25])
  column = int((1 / 3 + 1) / 2 * 64)
  # Half of the ball's 0.5, added to the floor.
  near(image, 32, column, [0.25, 0, 0.25])


def test_what_one_can_see_through_is_blended():
  ball = "<geom type='{}' pos='0 0 .5' size='{}' rgba='1 0 0 .25'/>"
  kinds = {
    "sphere": ".2",
    "capsule": ".2 .1",
    "cylinder": ".2 .1",
    "ellipsoid": ".2 .3 .1",
    "box": ".2 .2 .1",
  }
  for kind, size in kinds.items():
    image = picture(FLOOR + ball.format(kind, size))
    # A quarter of 0.5 red over three quarters of the floor.
    near(image, 16, 16, [0.125 + 0.075, 0.15, 0.3])
    near(image, 2, 2, [0.1, 0.2, 0.4])


def test_geoms_and_sites_of_hidden_groups_are_not_drawn():
  geom = "<geom type='sphere' pos='0 0 .5' size='.2' group='{}'/>"
  site = "<site type='sphere' pos='0 0 .5' size='.2' group='{}'/>"
  bare = picture(FLOOR)
  for thing in (geom, site):
    assert (picture(FLOOR + thing.format(3)) == bare).all()
    assert (picture(FLOOR + thing.format(2)) != bare).any()


def test_sites_are_hidden_by_what_stands_before_them():
  site = "<site type='sphere' pos='0 0 .5' size='.2' rgba='1 0 0 1'/>"
  roof = "<geom type='box' pos='0 0 {}' size='.4 .4 .01' rgba='0 1 0 1'/>"
  near(picture(FLOOR + site), 16, 16, [0.5, 0, 0])
  near(picture(FLOOR + site + roof.format(1)), 16, 16, [0, 0.5, 0])
  near(picture(FLOOR + site + roof.format(0.1)), 16, 16, [0.5, 0, 0])


def test_a_string_is_drawn_unbroken_by_the_share_it_covers():
  sites = (
    "<site name='a' pos='-.5 -.3 0' size='.0001' rgba='0 0 0 0'/>"
    "<site name='b' pos='.5 .3 0' size='.0001' rgba='0 0 0 0'/>"
    "<body><joint type='slide'/><geom size='.1' group='4'/></body>"
  )
  tendon = (
    "<tendon><spatial width='.005' rgba='1 1 1 1'>"
    "<site site='a'/><site site='b'/></spatial></tendon>"
  )
  image = picture(sites, tendon=tendon)[:, :, 0]
  # From x = -.5 to .5 are columns 8 to 23; each holds its share of the string:
  # 10 mm across of 62.5 mm a pixel, over the cosine of its slope.
  share = 0.01 / 0.0625 * np.hypot(1, 0.6) * 0.5 * 255
  columns = image[:, 10:22].sum(0)
  assert image[:, 10:22].max(0).min() > 0
  np.testing.assert_allclose(columns, share, rtol=0.35)
  np.testing.assert_allclose(columns.mean(), share, rtol=0.1)


CHECKER = (
  "<texture name='t' type='2d' builtin='checker' rgb1='1 0 0' rgb2='0 0 1' "
  "width='64' height='64'/>"
  "<material name='m' texture='t' texuniform='{}' texrepeat='{}' "
  "specular='0'/>"
)


@pytest.mark.parametrize("uniform", ["true", "false"])
@pytest.mark.parametrize("repeat", ["1 1", "3 2"])
@pytest.mark.parametrize("size", ["1.25 .75 1", "0 0 1"])
def test_checkers_lie_where_opengl_puts_them(uniform, repeat, size):
  if renderers._probe("egl") is None:
    pytest.skip("no EGL on this machine")
  from jplanet.envs.gl import GLRenderer

  ray = scene(
    f"<geom type='plane' size='{size}' material='m'/>",
    asset=CHECKER.format(uniform, repeat),
  )
  physics = types.SimpleNamespace(
    model=types.SimpleNamespace(ptr=ray._model),
    data=types.SimpleNamespace(ptr=ray._data),
  )
  gl = GLRenderer("egl", physics, size=32)
  try:
    theirs = gl.render().astype(int)
  finally:
    gl.close()
  ours = ray.render().astype(int)
  # All but the edges of squares, which OpenGL smooths.
  assert (np.abs(ours - theirs).max(-1) < 20).mean() > 0.8


def test_the_sky_fills_what_nothing_covers():
  asset = (
    "<texture type='skybox' builtin='gradient' rgb1='1 0 0' rgb2='0 0 1' "
    "width='64' height='384'/>"
  )
  image = picture("", asset=asset)
  # Straight down is the far end of the gradient.
  assert image[:, :, 2].min() > 200 and image[:, :, 0].max() < 40
  assert picture("").max() == 0


def test_supersampling_is_the_mean_over_finer_pixels():
  things = FLOOR + "<geom type='sphere' pos='0 0 .5' size='.3'/>"
  fine = picture(things, size=64)
  coarse = picture(things, size=32, supersample=2)
  blocks = fine.reshape(32, 2, 32, 2, 3).mean((1, 3))
  assert np.abs(coarse - blocks).max() <= 1


def test_rendering_leaves_the_simulation_alone():
  env = make_env("fish_swim", size=16, renderer="ray")
  env.reset()
  model = env.physics.model.ptr
  before = [
    getattr(model, name).copy()
    for name in ("body_bvhadr", "geom_group", "geom_rgba", "bvh_aabb")
  ]
  state = env.physics.get_state().copy()
  one, two = env._draw.render(), env._draw.render()
  np.testing.assert_array_equal(one, two)
  np.testing.assert_array_equal(state, env.physics.get_state())
  for name, value in zip(
    ("body_bvhadr", "geom_group", "geom_rgba", "bvh_aabb"), before
  ):
    np.testing.assert_array_equal(getattr(model, name), value)


def test_a_tracking_camera_keeps_the_cheetah_in_the_picture():
  env = make_env("cheetah_run", size=32, renderer="ray")
  env.reset()
  env.physics.data.qpos[0] = 20.0
  env.physics.forward()
  image = env._draw.render().astype(int)
  # Something orange: the cheetah's own colour has more red than blue.
  assert (image[:, :, 0] > image[:, :, 2] + 40).sum() > 20


@pytest.mark.parametrize("task", TASKS)
def test_the_two_renderers_look_alike(task):
  if renderers._probe("egl") is None:
    pytest.skip("no EGL on this machine")
  env = make_env(task, renderer="gl:egl")
  try:
    env.seed(1)
    env.reset()
    for _ in range(5):
      env.step(np.full(env.action_spec().shape, 0.5))
    gl = env._draw.render().astype(float)
    ray = RayRenderer(env.physics, size=64).render()
  finally:
    env.close()
  # In grey levels of 256; pictures of other states differ by 5 to 20.
  assert np.abs(gl - ray).mean() < 6
  assert np.abs(gl.mean((0, 1)) - ray.mean((0, 1))).max() < 6
