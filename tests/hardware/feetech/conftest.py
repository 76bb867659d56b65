import pytest

from robot_rl.hardware.feetech.calibration import save
from robot_rl.hardware.robot_file import RobotFile

from .simulator import Simulator
from .so101 import so101_calibration, so101_servos


@pytest.fixture
def robot():
    return RobotFile.load("so101")


@pytest.fixture
def joints():
    return so101_calibration()


@pytest.fixture
def calibration_file(tmp_path, joints):
    path = tmp_path / "so101.json"
    save(joints, path)
    return path


@pytest.fixture
def simulator(tmp_path, joints):
    with Simulator(tmp_path, so101_servos(joints)) as simulated:
        yield simulated
