"""Intrinsics of simulated cameras against pictures of a small ball that is moved about."""

import mujoco
import numpy as np
import pytest

from robot_rl import sim
from robot_rl.datasets.contract import Contract, Feature, equal
from robot_rl.datasets.resample import View
from robot_rl.sim.camera_feature import camera_feature
from robot_rl.sim.render import Renderer

SCENE = """
<mujoco>
  <worldbody>
    <camera name="camera" fovy="60"/>
    <body mocap="true"><geom name="ball" type="sphere" size=".04"/></body>
  </worldbody>
</mujoco>
"""
SIZES = [(120, 160), (200, 150)]


@pytest.mark.render
@pytest.mark.parametrize("size", SIZES)
def test_points_are_seen_where_the_intrinsics_say(size):
    model = mujoco.MjModel.from_xml_string(SCENE)
    data = mujoco.MjData(model)
    lens = camera_feature("camera", *size, 60.0).calibration
    random, missed = np.random.default_rng(0), []
    with Renderer(model, geom_groups=(0,)) as renderer:
        for x, y, z in random.uniform((-0.3, -0.4, 1.0), (0.3, 0.4, 1.5), (40, 3)):
            data.mocap_pos[0] = x, -y, -z  # MuJoCo's cameras look along -z, y upwards
            mujoco.mj_forward(model, data)
            ids = renderer.geom_ids(data, "camera", np.zeros((*size, 1), np.int32))[..., 0]
            row, column = np.argwhere(ids == 0).mean(axis=0)
            missed.append([column - lens["fx"] * x / z - lens["cx"], row - lens["fy"] * y / z - lens["cy"]])
    assert np.abs(np.mean(missed, axis=0)).max() < 0.1


@pytest.mark.parametrize("task", ["lift", "peg", "drone/hover"])
@pytest.mark.parametrize("small", [(24, 32), (16, 22)])
def test_a_picture_made_smaller_has_the_contract_of_a_small_one(task, small):
    one, other = (_seen(task, size) for size in ((48, 64 if small[0] == 24 else 66), small))
    resampled = View(size=small).feature(one)
    equal(_contract(resampled), _contract(other))
    for key in ("fx", "fy", "cx", "cy"):
        assert resampled.calibration[key] == pytest.approx(other.calibration[key])


def _seen(task: str, size: tuple[int, int]) -> Feature:
    env = sim.make({"task": task, "cameras": {"agentview": list(size)}})
    env.close()
    return env.contract.observation["agentview"]


def _contract(feature: Feature) -> Contract:
    return Contract("any", 10.0, {feature.name: feature}, {"a": Feature("a", (1,), kind="action")})
