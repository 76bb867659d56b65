"""Pictures against robosuite's own, geometry against ray casting and known distances."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import mujoco
import numpy as np
import pytest

from robot_rl.sim import gl_context
from robot_rl.sim.render import Renderer, RenderError

SCENE = """
<mujoco>
  <visual><map znear="0.01"/></visual>
  <asset>
    <texture name="paint" type="2d" builtin="flat" rgb1="1 0 0" width="32" height="32"/>
    <material name="paint" texture="paint"/>
  </asset>
  <worldbody>
    <light pos="0 0 4" dir="0 0 -1"/>
    <geom name="floor" type="plane" size="0 0 1" group="1" rgba=".2 .4 .2 1"/>
    <geom name="collision" type="box" size="2 2 .1" pos="0 0 1.5" group="0"/>
    <body name="cube" pos="0 0 .1">
      <freejoint/>
      <geom name="cube" type="box" size=".1 .1 .1" group="1" material="paint"/>
    </body>
    <geom name="ball" type="sphere" size=".2" pos="-.6 .6 .2" group="1" rgba="0 0 1 1"/>
    <geom name="far" type="cylinder" size=".3 .5" pos="20 0 .5" group="1" rgba="0 1 1 1"/>
    <camera name="top" pos="0 0 1.1" fovy="60"/>
    <camera name="side" pos="0 -2 .3" xyaxes="1 0 0 0 0 1" fovy="70"/>
    <camera name="lens" pos="0 0 1.1" resolution="64 48" focal=".002 .002" sensorsize=".004 .003"/>
  </worldbody>
</mujoco>
"""


@pytest.fixture
def scene() -> tuple[mujoco.MjModel, mujoco.MjData]:
    model = mujoco.MjModel.from_xml_string(SCENE)
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    return model, data


CAMERAS = ["agentview", "robot0_eye_in_hand"]


def picture(height: int = 48, width: int = 64, channels: int = 3, dtype: type = np.uint8) -> np.ndarray:
    return np.zeros((height, width, channels), dtype)


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / np.square(a.astype(float) - b).mean()))


@pytest.fixture(scope="module")
def lift():
    import robosuite
    from robosuite.utils.log_utils import ROBOSUITE_DEFAULT_LOGGER

    ROBOSUITE_DEFAULT_LOGGER.setLevel("ERROR")
    env = robosuite.make(
        "Lift", "Panda", has_renderer=False, has_offscreen_renderer=True, camera_names=CAMERAS,
        camera_heights=84, camera_widths=84, hard_reset=False, seed=0,
    )  # fmt: skip
    observation = env.reset()
    yield env, observation
    env.close()


@pytest.mark.render
class TestAgainstRobosuite:
    @pytest.mark.parametrize("camera", CAMERAS)
    def test_full_is_its_picture_and_fast_is_close(self, lift, camera):
        env, observation = lift
        model, data = env.sim.model._model, env.sim.data._data
        theirs = observation[f"{camera}_image"][::-1]
        with Renderer(model, "full") as full, Renderer(model, "fast") as fast:
            exact = full.render(data, camera, picture(84, 84)).copy()
            close = fast.render(data, camera, picture(84, 84)).copy()
        assert np.abs(exact.astype(int) - theirs).max() <= 2
        assert psnr(close, theirs) > 24
        assert np.abs(close.mean((0, 1)) - theirs.mean((0, 1))).max() < 2

    def test_robosuite_still_renders_after_us(self, lift):
        env, _ = lift
        before = env.sim.render(camera_name="agentview", width=32, height=32)
        with Renderer(env.sim.model._model) as renderer:
            renderer.render(env.sim.data._data, "frontview", picture())
        np.testing.assert_array_equal(env.sim.render(camera_name="agentview", width=32, height=32), before)

    @pytest.mark.parametrize("camera", ["agentview", "robot0_eye_in_hand", "frontview"])
    def test_leaving_out_what_is_outside_changes_no_pixel(self, lift, camera):
        env, _ = lift
        model, data = env.sim.model._model, env.sim.data._data
        with Renderer(model) as culled, Renderer(model) as whole:
            whole._bounded[:] = False
            small = culled.render(data, camera, picture(70, 100))
            np.testing.assert_array_equal(small, whole.render(data, camera, picture(70, 100)))
            assert culled._scene.ngeom < whole._scene.ngeom


@pytest.mark.render
class TestRenderer:
    @pytest.mark.parametrize("quality", ["fast", "full"])
    def test_picture_is_upright_rgb(self, scene, quality):
        model, data = scene
        with Renderer(model, quality) as renderer:
            top = renderer.render(data, "top", picture())
        assert top[24, 32].argmax() == 0, "the red cube is in the centre"
        assert top[24, 32, 0] > 2 * top[24, 32, 2]
        row, column = np.argwhere(top[..., 2] > 1.5 * top[..., :2].max(-1)).mean(0)
        assert row < 24, "the blue ball lies to the north-west"
        assert column < 32

    def test_sizes_may_change_from_call_to_call(self, scene):
        model, data = scene
        with Renderer(model) as renderer:
            small = renderer.render(data, "top", picture(24, 32))
            large = renderer.render(data, "top", picture(240, 320))
            np.testing.assert_array_equal(renderer.render(data, "top", picture(24, 32)), small)
        blocks = large.reshape(24, 10, 32, 10, 3).mean((1, 3))
        assert np.abs(blocks - small).mean() < 3

    @pytest.mark.parametrize("camera", ["top", "side", "lens"])
    def test_geom_ids_agree_with_ray_casting(self, scene, camera):
        model, data = scene
        height, width = 48, 64
        with Renderer(model) as renderer:
            ids = renderer.geom_ids(data, camera, picture(height, width, 1, np.int32))[..., 0]
        index = model.camera(camera).id
        if model.cam_sensorsize[index].any():
            focal = height * model.cam_intrinsic[index, 1] / model.cam_sensorsize[index, 1]
        else:
            focal = height / 2 / np.tan(np.radians(model.cam_fovy[index]) / 2)
        groups, agreeing = np.array([0, 1, 1, 0, 0, 0], np.uint8), []
        for row in range(2, height, 5):
            for column in range(2, width, 5):
                ray = np.array([column + 0.5 - width / 2, height / 2 - row - 0.5, -focal])
                hit = np.full(1, -1, np.int32)
                direction = data.cam_xmat[index].reshape(3, 3) @ ray
                mujoco.mj_ray(model, data, data.cam_xpos[index], direction, groups, 1, -1, hit)
                agreeing.append(hit[0] == ids[row, column])
        assert np.mean(agreeing) > 0.97

    def test_depth_is_in_millimetres(self, scene):
        model, data = scene
        with Renderer(model) as renderer:
            top = renderer.depth(data, "top", picture(channels=1, dtype=np.uint16))
            side = renderer.depth(data, "side", picture(channels=1, dtype=np.uint16))
        assert abs(int(top[24, 32, 0]) - 900) <= 1
        assert abs(int(top[-1, 0, 0]) - 1100) <= 1
        assert abs(int(side[27, 32, 0]) - 1900) <= 2
        assert side[0, 0, 0] == 0, "nothing is hit in the sky"

    def test_model_is_left_as_it_was(self, scene):
        model, data = scene
        before = np.zeros(mujoco.mj_sizeModel(model), np.uint8)
        after = before.copy()
        mujoco.mj_saveModel(model, None, before)
        with Renderer(model) as renderer:
            renderer.render(data, "side", picture())
        mujoco.mj_saveModel(model, None, after)
        np.testing.assert_array_equal(before, after)

    def test_uploaded_texture_is_shown_by_this_renderer_only(self, scene):
        model, data = scene
        texture = model.texture("paint").id
        with Renderer(model) as renderer, Renderer(model) as other:
            red = renderer.render(data, "top", picture()).copy()
            np.testing.assert_array_equal(other.render(data, "top", picture()), red)
            for colour in ((0, 255, 0), (0, 0, 255)):
                model.tex_data[:] = np.tile(np.array(colour, np.uint8), 32 * 32)
                renderer.upload_texture(texture)
                seen = renderer.render(data, "top", picture())[24, 32]
                assert seen.argmax() == np.argmax(colour)
            np.testing.assert_array_equal(other.render(data, "top", picture()), red)

    def test_equal_models_share_their_uploads(self, scene):
        model, data = scene
        twin = mujoco.MjModel.from_xml_string(SCENE)
        with Renderer(model) as renderer, Renderer(twin) as other, Renderer(model, "full") as full:
            for each in (renderer, other, full):
                each.render(data, "top", picture())
            assert other._uploads is renderer._uploads is not full._uploads

    def test_renders_from_any_thread(self, scene):
        model, data = scene
        pictures = {}
        with Renderer(model) as renderer:
            expected = renderer.render(data, "top", picture()).copy()

            def work(name: int) -> None:
                pictures[name] = renderer.render(data, "top", picture())

            threads = [threading.Thread(target=work, args=(name,)) for name in range(3)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        assert len(pictures) == 3
        for made in pictures.values():
            np.testing.assert_array_equal(made, expected)

    def test_renders_again_after_close(self, scene):
        model, data = scene
        renderer = Renderer(model)
        first = renderer.render(data, "top", picture()).copy()
        renderer.close()
        renderer.close()
        np.testing.assert_array_equal(renderer.render(data, "top", picture()), first)
        renderer.close()

    def test_misuse_is_told(self, scene):
        model, data = scene
        renderer = Renderer(model)
        with pytest.raises(ValueError, match=r"no such camera; this model has top, side, lens"):
            renderer.render(data, "front", picture())
        with pytest.raises(ValueError, match=r"uint8 and shape \[height, width, 3\], got float32"):
            renderer.render(data, "top", picture(dtype=np.float32))
        with pytest.raises(ValueError, match="fast, full"):
            Renderer(model, "pretty")

    def test_forked_child_is_refused_instead_of_hanging(self, scene):
        model, data = scene
        renderer = Renderer(model)
        renderer.render(data, "top", picture())
        child = os.fork()
        if child == 0:
            try:
                renderer.render(data, "top", picture())
            except RenderError:
                os._exit(7)
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7


class TestWithoutOpenGL:
    @pytest.fixture(autouse=True)
    def unopened(self, monkeypatch):
        monkeypatch.setattr(gl_context, "_opened", None)

    def test_missing_libraries_name_the_packages(self, scene, monkeypatch):
        def missing(*names: str) -> None:
            raise RenderError(f"{names[0]} is missing")

        monkeypatch.delenv("MUJOCO_GL", raising=False)
        monkeypatch.setattr(gl_context, "_library", missing)
        with pytest.raises(RenderError, match=r"libGL.so.1 is missing.*apt install libegl1 libgl1.*libosmesa6"):
            Renderer(scene[0])

    def test_switched_off(self, scene, monkeypatch):
        monkeypatch.setenv("MUJOCO_GL", "disabled")
        with pytest.raises(RenderError, match="MUJOCO_GL=disabled"):
            Renderer(scene[0])


@pytest.mark.render
@pytest.mark.parametrize("name", ["osmesa", "egl"])
def test_backend_can_be_chosen(name: str, tmp_path: Path):
    program = tmp_path / "program.py"
    program.write_text(
        "import mujoco, os\n"
        f"os.environ['MUJOCO_GL'] = {name!r}\n"
        "from robot_rl.sim.render import Renderer, RenderError\n"
        "model = mujoco.MjModel.from_xml_string('<mujoco/>')\n"
        "try:\n"
        "    print(Renderer(model).backend)\n"
        "except RenderError as error:\n"
        "    print(error)\n"
    )
    environment = {key: value for key, value in os.environ.items() if key not in ("MUJOCO_GL", "PYOPENGL_PLATFORM")}
    out = subprocess.run([sys.executable, program], env=environment, capture_output=True, text=True, check=True).stdout
    assert out.strip() == name or "apt install" in out
