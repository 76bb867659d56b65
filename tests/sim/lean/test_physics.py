import mujoco
import numpy as np
import pytest

from robot_rl.sim.lean.physics import Physics

PENDULUM = """<mujoco><option timestep="0.001" integrator="implicitfast"/><worldbody>
<body name="stand" mocap="true" pos="3 0 1"><geom type="box" size=".1 .1 .01"/></body>
<body pos="0 0 2"><joint name="swing" type="hinge" axis="0 1 0"/><geom type="sphere" size="0.01" pos="0 0 -1" mass="1"/>
</body><body pos="3 0 1.2"><freejoint/><geom type="sphere" size="0.05"/></body></worldbody>
<actuator><motor joint="swing"/></actuator></mujoco>"""


def test_a_pendulum_swings_as_it_should():
    """The period of small swings is 2π √(L (1 + 2/5 (r/L)²) / g), for a sphere of radius r on an arm of length L."""
    physics = Physics(mujoco.MjModel.from_xml_string(PENDULUM), 2)
    physics.qpos[:, 0] = [0.02, -0.01]
    period = 2 * np.pi * np.sqrt((1 + 0.4 * 0.01**2) / 9.81)
    physics.step(round(period / 0.001))
    np.testing.assert_allclose(physics.qpos[:, 0], [0.02, -0.01], rtol=1e-3)


def test_copies_are_what_mujoco_does_with_each_alone():
    model = mujoco.MjModel.from_xml_string(PENDULUM)
    physics = Physics(model, 3)
    physics.qpos[:, 0], physics.ctrl[:, 0] = [0.1, 0.2, 0.3], [0.0, 1.0, -1.0]
    physics.mocap[:, 0, 2] = [1.0, 0.9, 1.05]
    for _ in range(30):
        physics.step(10)
    for row in range(3):
        data = mujoco.MjData(model)
        data.qpos[0], data.ctrl[0] = [0.1, 0.2, 0.3][row], [0.0, 1.0, -1.0][row]
        data.mocap_pos[0, 2] = [1.0, 0.9, 1.05][row]
        mujoco.mj_step(model, data, 300)
        np.testing.assert_array_equal(physics.qpos[row], data.qpos)
        np.testing.assert_array_equal(physics.qvel[row], data.qvel)
        assert physics.show(row).ncon == 1


def test_states_return():
    physics = Physics(mujoco.MjModel.from_xml_string(PENDULUM), 3)
    physics.step(100)
    states = physics.get_states()
    assert states.shape == (3, physics.state_size)
    physics.step(100)
    after = physics.get_states()
    physics.set_states(states[:2], np.array([2, 0]))
    physics.step(100)
    np.testing.assert_array_equal(physics.get_states()[[2, 0]], after[:2])


def test_refuses_states_that_it_would_not_keep():
    actuated = PENDULUM.replace('<motor joint="swing"/>', '<intvelocity joint="swing" actrange="-1 1"/>')
    with pytest.raises(ValueError, match="activations"):
        Physics(mujoco.MjModel.from_xml_string(actuated), 1)
