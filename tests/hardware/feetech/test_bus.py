"""The bus against simulated servos behind a pseudo-terminal, with what can go wrong on a cable."""

import pytest

from robot_rl.hardware.feetech import bus as bus_module
from robot_rl.hardware.feetech import registers
from robot_rl.hardware.feetech.bus import Bus, BusError, PortError

PATIENCE = 0.2  # a busy machine's


@pytest.fixture
def bus(simulator):
    opened = Bus.open(simulator.port, patience=PATIENCE)
    yield opened
    opened.close()


def test_reads_writes_and_finds_servos(simulator, bus, monkeypatch):
    monkeypatch.setattr(bus_module, "GLANCE", PATIENCE)
    assert bus.scan(range(1, 8)) == [1, 2, 3, 4, 5, 6]
    assert bus.read(3, registers.MODEL) == registers.STS3215
    bus.write(3, registers.ACCELERATION, 254)
    assert simulator[3].get(registers.ACCELERATION) == 254
    assert not bus.counts["asked"]


def test_a_round_reads_all_and_writes_all(simulator, bus):
    simulator[2].encoder += 10
    answers = bus.sync_read([1, 2], registers.PRESENT_POSITION.address, 2)
    assert [registers.PRESENT_POSITION.decode(answers[servo].data) for servo in (1, 2)] == [2047, 2057]
    bus.sync_write(registers.GOAL_POSITION, {1: 2000, 2: 2100})
    bus.read(2, registers.MODEL)  # answered in order: the goals have arrived
    assert [simulator[servo].get(registers.GOAL_POSITION) for servo in (1, 2)] == [2000, 2100]


@pytest.mark.parametrize("fault", ["corrupt", "drop"])
def test_a_damaged_answer_is_asked_for_again(simulator, bus, fault):
    setattr(simulator, fault, 1)
    assert bus.read(1, registers.MODEL) == registers.STS3215
    assert bus.counts["asked"] == 1
    assert bus.counts["corrupted"] == (fault == "corrupt")


def test_in_a_round_only_the_damaged_answer_is_asked_for_again(simulator, bus):
    simulator.corrupt = 1
    before = len(simulator.heard)
    assert set(bus.sync_read([1, 2, 3], registers.PRESENT_POSITION.address, 2)) == {1, 2, 3}
    assert [heard[2] for heard in simulator.heard[before:]] == [0xFE, 1]


def test_noise_before_answers_does_no_harm(simulator, bus):
    simulator.noise = b"\xff\x00\x55\xff"
    assert bus.read(4, registers.MODEL) == registers.STS3215


def test_data_is_never_taken_from_damaged_packets(simulator, bus):
    simulator.corrupt = 100
    with pytest.raises(BusError, match="servo 1 does not answer"):
        bus.read(1, registers.MODEL)
    assert bus.counts["silent"] == 1


def test_a_missing_servo_is_named(simulator, bus):
    simulator.missing = {4}
    with pytest.raises(BusError, match=r"servo 4 does not answer.*power"):
        bus.sync_read([3, 4, 5], registers.PRESENT_POSITION.address, 2)


def test_a_pulled_cable_is_told(simulator, bus):
    simulator.unplug()
    with pytest.raises(PortError, match="the port is gone"):
        bus.read(1, registers.MODEL)


def test_ports_that_cannot_be_opened(simulator, bus, tmp_path):
    with pytest.raises(PortError, match="another program uses it"):
        Bus.open(simulator.port)
    with pytest.raises(PortError, match=r"there is no such port.*robots ports"):
        Bus.open(str(tmp_path / "ttyACM7"))
    with pytest.raises(PortError, match="no serial port was named"):
        Bus.open("")


def test_a_missing_permission_gives_rule_and_group():
    text = bus_module._explain("/dev/ttyACM0", PermissionError(13, "Permission denied"))
    assert "udevadm" in text
    assert "usermod -aG dialout" in text
