"""Each entry changes what it says and nothing else, within its range, repeatably, and is taken back bit by bit."""

from __future__ import annotations

import json
from types import SimpleNamespace

import mujoco
import numpy as np
import pytest

from robot_rl.sim.domain_randomization import CONTROLLER, LOOP, MODEL, STATE, Randomizer
from robot_rl.sim.render import Renderer
from robot_rl.sim.spec import SpecError, available, load

SCENE = """
<mujoco>
  <compiler angle="radian"/>
  <asset>
    <texture name="wood" type="2d" builtin="flat" rgb1=".5 .4 .3" width="40" height="30"/>
    <texture name="tile" type="cube" builtin="flat" rgb1=".9 .9 .9" width="16" height="96"/>
    <texture name="sky" type="skybox" builtin="gradient" rgb1="1 1 1" rgb2="0 0 0" width="8" height="48"/>
    <material name="wood" texture="wood"/>
    <material name="steel" rgba=".4 .5 .6 1"/>
  </asset>
  <worldbody>
    <light name="lamp" pos="0 0 3" dir="0 0 -1" diffuse=".6 .6 .6"/>
    <camera name="front" pos="1 0 1" xyaxes="0 1 0 -.7 0 .7" fovy="50"/>
    <geom name="table" type="box" size="1 1 .1" pos="0 0 -.1" group="1" rgba=".3 .3 .3 1"/>
    <body name="base" pos="-.5 0 0">
      <geom name="foot" size=".1" mass="3" group="1" material="steel"/>
      <body name="upper" pos="0 0 .3">
        <joint name="robot0_shoulder" axis="0 1 0" range="-1 1" damping="2"/>
        <geom name="upper" type="capsule" fromto="0 0 0 .3 0 0" size=".04" mass="{upper}" group="1" material="steel"/>
        <body name="hand" pos=".3 0 0">
          <joint name="finger" type="slide" axis="1 0 0" range="0 .1" damping="5"/>
          <geom name="hand" type="box" size=".03 .03 .03" mass=".5" group="1" rgba="0 1 0 1"/>
          <camera name="wrist" pos="0 0 .1" fovy="70"/>
        </body>
      </body>
    </body>
    <body name="cube" pos=".2 0 .05">
      <freejoint/>
      <geom name="cube" type="box" size=".05 .05 .05" mass="{cube}" friction="1 .005 .0001" group="1" material="wood"/>
    </body>
    <body name="ball" pos=".2 .3 .05">
      <freejoint/>
      <geom name="ball" size=".05" mass=".2" group="1" rgba="1 0 0 1"/>
    </body>
  </worldbody>
  <actuator><motor name="shoulder" joint="robot0_shoulder"/></actuator>
</mujoco>
"""


def scene(upper: float = 2.0, cube: float = 0.1) -> mujoco.MjData:
    data = mujoco.MjData(mujoco.MjModel.from_xml_string(SCENE.format(upper=upper, cube=cube)))
    mujoco.mj_forward(data.model, data)
    return data


def randomizer(data: mujoco.MjData, config: dict, controller: object = None) -> Randomizer:
    model = data.model
    return Randomizer(data, config, [model.body("cube").id], [model.body("base").id], controller)


def fields(model: mujoco.MjModel) -> dict[str, np.ndarray]:
    arrays = {name: getattr(model, name) for name in dir(model) if not name.startswith("_")}
    arrays = {name: array.copy() for name, array in arrays.items() if isinstance(array, np.ndarray)}
    arrays |= {f"stat.{name}": np.array(getattr(model.stat, name)) for name in ("meaninertia", "meanmass", "extent")}
    head = model.vis.headlight
    return arrays | {f"headlight.{name}": getattr(head, name).copy() for name in ("ambient", "diffuse", "specular")}


def differences(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> dict[str, set[int]]:
    """Fields that differ, and in which rows."""
    found = {}
    for name, array in a.items():
        if not np.array_equal(array, b[name]):
            unlike = np.reshape(array != b[name], (len(np.atleast_1d(array)), -1))
            found[name] = set(np.flatnonzero(unlike.any(-1)).tolist())
    return found


DERIVED = {"body_subtreemass", "body_invweight0", "dof_M0", "dof_invweight0", "stat.meaninertia", "stat.meanmass"}
LIGHT = {"light_pos", "light_dir", "light_diffuse", "light_specular"}
HEADLIGHT = {f"headlight.{name}" for name in ("ambient", "diffuse", "specular")}
ENTRIES = {
    "mass": ({"bodies": "cube", "scale": [2, 3]}, {"body_mass", "body_inertia", *DERIVED}),
    "friction": ({"geoms": ["cube", "t*"], "scale": [0.5, 0.6]}, {"geom_friction"}),
    "joint_damping": ({"scale": [2, 3]}, {"dof_damping"}),
    "light": ({"position": 0.5, "direction": 0.3, "scale": [0.5, 0.8]}, {*LIGHT, *HEADLIGHT}),
    "colour": ({"materials": "steel", "shift": 0.2}, {"mat_rgba"}),
    "geom_colour": ({"geoms": "scene", "shift": 0.2}, {"geom_rgba"}),
    "texture": ({"textures": "wood", "kinds": ["noise"]}, {"tex_data"}),
    "camera_pose": ({"cameras": "front", "position": 0.1, "rotation": 0.1}, {"cam_pos", "cam_quat"}),
    "field_of_view": ({"cameras": ["wrist"], "scale": [0.5, 0.9]}, {"cam_fovy"}),
}


class TestModel:
    def test_every_entry_is_tested(self):
        assert ENTRIES.keys() == MODEL.keys()

    @pytest.mark.parametrize("entry", ENTRIES)
    def test_entry_changes_what_it_says_and_restores_it(self, entry):
        config, expected = ENTRIES[entry]
        data = scene()
        nominal = fields(data.model)
        varied = randomizer(data, {entry: config})
        assert not differences(nominal, fields(data.model))
        varied.apply(varied.draw(np.random.default_rng(0)))
        assert differences(nominal, fields(data.model)).keys() == expected
        varied.restore()
        assert not differences(nominal, fields(data.model))

    @pytest.mark.parametrize("entry", [*ENTRIES, "all"])
    def test_record_decides_alone(self, entry):
        config = {entry: ENTRIES[entry][0]} if entry in ENTRIES else {name: each for name, (each, _) in ENTRIES.items()}
        data, other = scene(), scene()
        varied, replayed = randomizer(data, config), randomizer(other, config)
        first, second = (varied.draw(np.random.default_rng(seed)) for seed in (1, 2))
        assert first == varied.draw(np.random.default_rng(1))
        varied.apply(first)
        once = fields(data.model)
        varied.apply(second)
        varied.apply(first)
        assert not differences(once, fields(data.model))
        replayed.apply(json.loads(json.dumps(first)))
        assert not differences(once, fields(other.model))
        assert first != second

    def test_mass_is_that_of_a_model_compiled_with_it(self):
        data = scene()
        varied = randomizer(data, {"mass": {"bodies": ["cube", "upper"], "scale": [0.1, 9]}})
        varied.apply({"mass": {"cube": 3.0, "upper": 0.5}})
        expected = scene(upper=1.0, cube=0.3).model
        for name in ("body_mass", "body_inertia", *(DERIVED - {"stat.meaninertia", "stat.meanmass"}), "actuator_acc0"):
            np.testing.assert_allclose(getattr(data.model, name), getattr(expected, name), rtol=1e-9, err_msg=name)
        assert data.model.stat.meaninertia == pytest.approx(expected.stat.meaninertia)

    def test_mass_does_not_depend_on_what_a_reset_moved(self):
        data = scene()
        varied = randomizer(data, {"mass": {"bodies": "*", "scale": [0.5, 2]}})
        record = varied.draw(np.random.default_rng(0))
        varied.apply(record)
        before = fields(data.model)
        data.model.body_pos[data.model.body("base").id] += 0.3
        data.model.cam_pos[0] += 0.1
        varied.apply(record)
        assert differences(before, fields(data.model)).keys() == {"body_pos", "cam_pos"}

    def test_factors_lie_within_their_interval_and_may_be_one(self):
        data = scene()
        config = {"friction": {"geoms": "*", "scale": [0.5, 2.0]}}
        drawn = [randomizer(data, config).draw(np.random.default_rng(seed))["friction"] for seed in range(200)]
        factors = np.array([list(each.values()) for each in drawn])
        assert factors.shape == (200, 6)
        assert 0.5 <= factors.min() < 0.52
        assert 1.98 < factors.max() <= 2.0
        config["friction"]["together"] = True
        assert len(set(randomizer(data, config).draw(np.random.default_rng(0))["friction"].values())) == 1

    def test_words_stand_for_parts(self):
        data = scene()

        def chosen(entry: str, option: str, word: str, **rest: object) -> set[str]:
            varied = randomizer(data, {entry: {option: word, **rest}})
            return set(varied.draw(np.random.default_rng(0))[entry]) - {"headlight"}

        assert chosen("mass", "bodies", "objects", scale=[1, 2]) == {"cube"}
        assert chosen("mass", "bodies", "robots", scale=[1, 2]) == {"base", "upper", "hand"}
        assert chosen("mass", "bodies", "scene", scale=[1, 2]) == {"ball"}
        assert chosen("joint_damping", "joints", "*er", scale=[1, 2]) == {"robot0_shoulder", "finger"}
        assert chosen("colour", "materials", "robots", shift=0.1) == {"steel"}
        assert chosen("geom_colour", "geoms", "robots", shift=0.1) == {"hand"}
        assert chosen("texture", "textures", "objects") == {"wood"}
        assert chosen("texture", "textures", "scene") == {"tile", "sky"}
        assert chosen("camera_pose", "cameras", "robots") == {"wrist"}
        assert chosen("light", "lights", "*") == {"lamp"}

    def test_camera_moves_along_and_turns_about_its_own_axes(self):
        data = scene()
        before = data.cam_xpos[0].copy(), data.cam_xmat[0].reshape(3, 3).copy()
        varied = randomizer(data, {"camera_pose": {"cameras": "front", "position": 1, "rotation": 1}})
        varied.apply({"camera_pose": {"front": [0, 0, -0.2, 0, 0.3, 0]}})
        mujoco.mj_forward(data.model, data)
        np.testing.assert_allclose(data.cam_xpos[0], before[0] - 0.2 * before[1][:, 2], atol=1e-12)
        turn = np.array([[np.cos(0.3), 0, np.sin(0.3)], [0, 1, 0], [-np.sin(0.3), 0, np.cos(0.3)]])
        np.testing.assert_allclose(data.cam_xmat[0].reshape(3, 3), before[1] @ turn, atol=1e-12)

    @pytest.mark.parametrize("kind", ["flat", "gradient", "checker", "noise"])
    def test_textures_are_painted_within_their_colours(self, kind):
        data = scene()
        varied = randomizer(data, {"texture": {"kinds": [kind]}})
        assert varied.textures == [0, 1, 2]
        record = varied.draw(np.random.default_rng(3))
        record["texture"]["wood"]["colours"] = [[10, 20, 30], [110, 220, 30]]
        varied.apply(record)
        texels = data.model.tex_data[: 30 * 40 * 3].reshape(-1, 3)
        count = len(np.unique(texels, axis=0))
        assert texels[:, 0].min() >= 10
        assert texels[:, 1].max() <= 220
        assert (texels[:, 2] == 30).all()
        assert count == {"flat": 1, "checker": 2}.get(kind, count)
        assert kind in ("flat", "checker") or count > 20

    @pytest.mark.render
    @pytest.mark.parametrize("entry", ["light", "colour", "geom_colour", "texture", "camera_pose", "field_of_view"])
    def test_what_is_seen_reaches_the_picture(self, entry):
        data = scene()
        config = {
            **ENTRIES[entry][0],
            **{key: "*" for key in ("cameras", "geoms", "materials", "textures") if key in MODEL[entry]},
        }
        varied = randomizer(data, {entry: config})

        def seen() -> np.ndarray:
            mujoco.mj_forward(data.model, data)
            for texture in varied.textures:
                renderer.upload_texture(texture)
            return renderer.render(data, "front", np.zeros((64, 64, 3), np.uint8))

        with Renderer(data.model) as renderer:
            nominal = seen()
            pictures = []
            for seed in (0, 1, 0):
                varied.apply(varied.draw(np.random.default_rng(seed)))
                pictures.append(seen())
            varied.restore()
            np.testing.assert_array_equal(seen(), nominal)
        np.testing.assert_array_equal(pictures[0], pictures[2])
        assert np.abs(pictures[0].astype(int) - nominal).mean() > 0.2
        assert np.abs(pictures[0].astype(int) - pictures[1]).mean() > 0.2


class TestState:
    def test_joints_are_shifted_within_their_range(self):
        data = scene()
        varied = randomizer(data, {"initial_joints": {"shift": 0.05}})
        positions = []
        for seed in range(100):
            mujoco.mj_resetData(data.model, data)
            varied.place(varied.draw(np.random.default_rng(seed)))
            positions.append(data.qpos.copy())
        shoulder, finger = np.array(positions)[:, :2].T
        assert -0.05 <= shoulder.min() < -0.04
        assert 0.04 < shoulder.max() <= 0.05
        assert finger.min() == 0.0
        assert finger.max() > 0.04
        np.testing.assert_array_equal(np.array(positions)[:, 2:], np.tile(data.model.qpos0[2:], (100, 1)))

    def test_objects_move_horizontally_and_turn_about_the_vertical(self):
        data = scene()
        varied = randomizer(data, {"initial_objects": {"position": 0.02, "yaw": 0.5}})
        varied.place({"initial_objects": {"cube": [0.01, -0.02, 0.5]}})
        mujoco.mj_forward(data.model, data)
        body = data.model.body("cube").id
        np.testing.assert_allclose(data.xpos[body], [0.21, -0.02, 0.05], atol=1e-12)
        turned = data.xmat[body].reshape(3, 3)
        np.testing.assert_allclose(turned[:2, 0], [np.cos(0.5), np.sin(0.5)], atol=1e-12)
        assert set(varied.draw(np.random.default_rng(0))["initial_objects"]) == {"cube"}

    def test_objects_together_keep_their_arrangement(self):
        data = scene()
        model = data.model
        relative = data.xpos[model.body("ball").id] - data.xpos[model.body("cube").id]
        config = {"bodies": ["cube", "ball"], "position": 0.1, "yaw": 1.0, "together": True}
        varied = randomizer(data, {"initial_objects": config})
        record = varied.draw(np.random.default_rng(0))
        x, y, yaw = record["initial_objects"]["cube"]
        assert record["initial_objects"]["ball"] == [x, y, yaw]
        varied.place(record)
        mujoco.mj_forward(model, data)
        turned = data.xmat[model.body("cube").id].reshape(3, 3)
        between = data.xpos[model.body("ball").id] - data.xpos[model.body("cube").id]
        np.testing.assert_allclose(between, turned @ relative, atol=1e-12)
        centre = (data.xpos[model.body("ball").id] + data.xpos[model.body("cube").id]) / 2
        np.testing.assert_allclose(centre, [0.2 + x, 0.15 + y, 0.05], atol=1e-12)

    def test_gains(self):
        controller = SimpleNamespace(natural_frequency=50.0, damping_ratio=1.0, other=3.0)
        varied = randomizer(scene(), {"controller_gains": {"scale": [0.5, 2]}}, controller)
        for _ in range(2):
            varied.apply({"controller_gains": {"natural_frequency": 1.1, "damping_ratio": 0.9}})
        assert vars(controller) == pytest.approx({"natural_frequency": 55.0, "damping_ratio": 0.9, "other": 3.0})
        varied.restore()
        assert vars(controller) == {"natural_frequency": 50.0, "damping_ratio": 1.0, "other": 3.0}
        with pytest.raises(SpecError, match="no gains"):
            randomizer(scene(), {"controller_gains": {"scale": [1, 2]}}, object())


class TestMisuse:
    @pytest.mark.parametrize(
        ("config", "message"),
        [
            ({"weight": {}}, "no entry weight; there are: mass, friction"),
            ({"mass": {"bodys": "*", "scale": [1, 2]}}, "no option bodys; there are: bodies, scale"),
            ({"mass": {}}, "mass: scale has to be given"),
            (
                {"mass": {"bodies": "sphere", "scale": [1, 2]}},
                "'sphere'; there are: objects, robots, scene, base, upper",
            ),
            ({"mass": {"scale": [2, 1]}}, r"mass.scale: expected \[low, high\] above 0, got \[2, 1\]"),
            ({"mass": {"scale": 2}}, r"mass.scale: expected"),
            ({"mass": 2}, "expected a mapping with bodies, scale"),
            ({"colour": {"shift": -1}}, "colour.shift: expected a number of at least 0"),
            ({"texture": {"kinds": ["marble"]}}, "expected a list of flat, gradient"),
            ({"texture": {"kinds": "flat"}}, "expected a list of flat, gradient"),
            ({"light": {"lights": [1]}}, r"expected names, got \[1\]"),
        ],
    )
    def test_configuration(self, config, message):
        with pytest.raises(SpecError, match=message):
            randomizer(scene(), config)

    def test_record_of_another_configuration(self):
        data = scene()
        varied = randomizer(data, {"mass": {"scale": [1, 2]}})
        nominal = fields(data.model)
        with pytest.raises(SpecError, match="lacks mass"):
            varied.apply({})
        with pytest.raises(SpecError, match="'sphere'"):
            varied.apply({"mass": {"cube": 2.0, "sphere": 2.0}})
        assert not differences(nominal, fields(data.model))


def test_presets_cover_everything():
    assert {"none", "light", "full"} <= set(available("randomization"))
    assert load("randomization", "full").keys() == {"name", *MODEL, *STATE, *CONTROLLER, *LOOP}
    for name in ("none", "light", "full"):
        config = load("randomization", name)
        controller = SimpleNamespace(stiffness=1.0)
        record = randomizer(scene(), config, controller).draw(np.random.default_rng(0))
        assert set(record) == set(config) - set(LOOP) - {"name"}
