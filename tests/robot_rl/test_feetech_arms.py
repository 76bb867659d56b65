"""Arms of Feetech servos from the command line: ports, ids, calibration, and sessions that start their driver."""

import runpy
from pathlib import Path

import pytest

from robot_rl import deploy, feetech_arms, teleop
from robot_rl.arm_driver import ArmDriverError, driver_parameters
from robot_rl.cli import main
from robot_rl.feetech_arms import ArmError
from robot_rl.hardware.feetech import bus as buses
from robot_rl.hardware.feetech import calibration
from robot_rl.hardware.feetech.calibration import CalibrationError
from robot_rl.hardware.robot_file import RobotFile

simulated = runpy.run_path(str(Path(__file__).parents[1] / "hardware" / "feetech" / "simulator.py"))
SimulatedServo, Simulator = simulated["SimulatedServo"], simulated["Simulator"]
WAYS = {1: 2500, 2: 2270, 3: 2200, 4: 2160, 6: 1250}


@pytest.fixture(autouse=True)
def patience(monkeypatch, tmp_path):
    monkeypatch.setattr(buses, "PATIENCE", 0.2)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))


def move_all(simulator):
    def moved(procedure):
        for servo, ticks in WAYS.items():
            for way in (-ticks // 2, 0, ticks // 2, 0):
                simulator[servo].encoder = 1000 + way
                procedure.observe()

    return moved


def plain(command, *overrides):
    from omegaconf import OmegaConf

    from robot_rl.cli import compose

    config = OmegaConf.to_container(compose(command, list(overrides)), resolve=True)
    config.pop("hydra", None)
    return config


def calibrate(tmp_path, name="so101", leader=False):
    with Simulator(tmp_path, [SimulatedServo(i, 1000) for i in range(1, 7)]) as simulator:
        asked = []
        status = feetech_arms.calibrate("so101", simulator.port, name, leader, asked.append, move_all(simulator))
        assert status == 0
        assert len(asked) == 1
        return [servo.position for servo in simulator.servos]


def test_an_arm_is_calibrated_and_kept_by_name(tmp_path, capsys):
    assert calibrate(tmp_path) == [2047] * 6
    found = calibration.load(tmp_path / "config/robot_rl/calibration/so101.json", RobotFile.load("so101").driver.motors)
    assert found["elbow_flex"].homing_offset == 1000 - 2047
    said = capsys.readouterr().out
    assert "upper arm upright" in said
    assert "Move shoulder_pan, shoulder_lift, elbow_flex, wrist_flex, gripper from one end" in said
    assert "calibrated before" not in said
    first = (tmp_path / "config/robot_rl/calibration/so101.json").read_text()
    calibrate(tmp_path)  # another arm, without a name of its own
    (kept,) = (tmp_path / "config/robot_rl/calibration").glob("so101.before-*.json")
    assert kept.read_text() == first
    assert str(kept) in capsys.readouterr().out


def test_the_jaw_of_a_follower_has_to_turn_as_far_as_its_file_says(tmp_path, monkeypatch):
    monkeypatch.setitem(WAYS, 6, 700)
    with pytest.raises(CalibrationError, match="gripper was moved 62° of about 110°"):
        calibrate(tmp_path)
    calibrate(tmp_path, "so101_leader", leader=True)  # its handle turns less far


def test_new_servos_get_their_ids(tmp_path, monkeypatch):
    monkeypatch.setattr(buses, "LARGEST_ID", 7)
    monkeypatch.setattr(buses.Bus.scan, "__defaults__", (range(8),))
    with Simulator(tmp_path, [SimulatedServo(1)]) as simulator:
        given = []

        def connect(text):
            if given:
                assert simulator.servos[0].id == given[-1]
                simulator.servos[0].power_up()
                assert simulator.servos[0].id == given[-1]
            simulator.servos[:] = [SimulatedServo(1)]
            given.append(6 - len(given))
            assert list(RobotFile.load("so101").driver.motors)[given[-1] - 1] in text

        assert feetech_arms.set_up("so101", simulator.port, connect) == 0
        assert given == [6, 5, 4, 3, 2, 1]
        simulator.servos[:] = [SimulatedServo(1), SimulatedServo(2)]
        with pytest.raises(ArmError, match="servos 1, 2 answer; connect one alone"):
            feetech_arms.set_up("so101", simulator.port, lambda _: "")
        simulator.servos[:] = []
        with pytest.raises(ArmError, match="no servo answers at any rate"):
            feetech_arms.set_up("so101", simulator.port, lambda _: "")


def test_ports_are_listed_with_their_servos(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(buses, "GLANCE", 0.2)
    monkeypatch.setattr(feetech_arms, "IDS", range(1, 4))
    with Simulator(tmp_path, [SimulatedServo(1), SimulatedServo(2)]) as simulator:
        monkeypatch.setattr(buses, "ports", lambda: [(simulator.port, "USB 1a86:55d3")])
        assert main(["robots", "ports"]) == 0
    said = capsys.readouterr().out
    assert "USB 1a86:55d3" in said
    assert "servos 1, 2, 12.0 V" in said
    monkeypatch.setattr(buses, "ports", list)
    assert main(["robots", "ports"]) == 1


def test_a_robot_without_servos_is_no_arm(capsys):
    assert main(["robots", "calibrate", "panda", "--port", "/dev/ttyACM0"]) == 1
    assert "panda is no arm of Feetech servos" in capsys.readouterr().err


def test_a_session_starts_the_driver_of_a_port(tmp_path):
    calibrate(tmp_path, "left")
    asked = ["robot=so101", "port=/dev/ttyACM0", "calibration=left"]
    expected = {"robot": "so101", "port": "/dev/ttyACM0", "calibration": "left"}
    nodes = teleop.node_parameters(plain("teleop", *asked), tmp_path, "contract.json")
    assert list(nodes) == ["feetech", "supervisor", "recorder"]
    assert nodes["feetech"] == expected
    nodes = deploy.node_parameters(plain("deploy", *asked, "policy=runs/demo"), tmp_path, None)
    assert nodes["feetech"] == expected
    assert driver_parameters(plain("teleop", "robot=so101")) is None


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["robot=panda", "port=/dev/ttyACM0"], "ROS drivers of its own"),
        (["robot=so101", "port=/dev/ttyACM0", "twin=true"], "leave one of them out"),
        (["robot=so101", "calibration=left"], "give port="),
    ],
)
def test_what_does_not_go_together_is_refused(overrides, message):
    with pytest.raises(ArmDriverError, match=message):
        driver_parameters(plain("teleop", *overrides))


def test_an_arm_that_is_not_calibrated_is_refused_before_anything_starts(tmp_path):
    with pytest.raises(CalibrationError, match="not calibrated"):
        teleop.run(plain("teleop", "robot=so101", "port=/dev/ttyACM0", f"output={tmp_path / 'run'}"))
    assert not (tmp_path / "run").exists()
