"""The black box against independent readers (mcap, rosbags), a killed writer and a full disk."""

import errno
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import yaml
from mcap.reader import make_reader
from mcap.stream_reader import StreamReader
from rosbags.highlevel import AnyReader

from robot_rl.hardware.recording.bag import Bag, BagError
from robot_rl.hardware.recording.black_box import BlackBox, BlackBoxError, Topic, recover
from robot_rl.hardware.ros2 import messages
from robot_rl.hardware.ros2.qos import LATCHED, SENSOR, Qos

JOINTS, IMAGE = "sensor_msgs/msg/JointState", "sensor_msgs/msg/Image"


def topic(name: str, message_type: str, qos: Qos = SENSOR) -> Topic:
    definition, _ = messages.typestore().generate_msgdef(message_type, ros_version=2)
    return Topic(name, message_type, definition, messages.type_hash(message_type), qos)


def joint_state(number: int) -> bytes:
    return messages.encode(messages.make(JOINTS, name=["a"], position=[float(number)]))


def image(number: int) -> bytes:
    pixels = np.random.default_rng(number).integers(0, 256, 480 * 640 * 3, np.uint8)
    return messages.encode(messages.make(IMAGE, height=480, width=640, step=1920, encoding="rgb8", data=pixels))


def fill(box: BlackBox, count: int = 20) -> list[tuple[str, int, bytes]]:
    box.add_topic(topic("/joint_states", JOINTS))
    box.add_topic(topic("/wrist/image_raw", IMAGE, LATCHED))
    written = []
    for number in range(count):
        for name, cdr in (("/joint_states", joint_state(number)), ("/wrist/image_raw", image(number))):
            box.write(name, 10**18 + number, cdr)
            written.append((name, 10**18 + number, cdr))
    return written


def read(path: Path) -> list[tuple[str, int, bytes]]:
    return [(recorded.topic, recorded.received, bytes(recorded.cdr)) for recorded in Bag(path).read()]


def test_independent_readers_find_every_byte(tmp_path: Path) -> None:
    with BlackBox(tmp_path / "bag", {"robot": "panda"}) as box:
        written = fill(box)
    with box.path.open("rb") as file:
        reader = make_reader(file, validate_crcs=True)
        found = [(channel.topic, message.log_time, message.data) for _, channel, message in reader.iter_messages()]
        summary = reader.get_summary()
        records = list(reader.iter_metadata())
    assert sorted(found) == sorted(written)
    assert summary is not None
    assert summary.statistics is not None
    assert summary.statistics.message_count == len(written)
    assert records[0].metadata == {"robot": "panda"}
    hashes = [channel.metadata["topic_type_hash"] for channel in summary.channels.values()]
    assert hashes == [messages.type_hash(JOINTS), messages.type_hash(IMAGE)]
    for _ in StreamReader(str(box.path), validate_crcs=True).records:  # every record can be parsed, every CRC holds
        pass

    with AnyReader([tmp_path / "bag"]) as bag:
        again = [(connection.topic, time, bytes(cdr)) for connection, time, cdr in bag.messages()]
        connection, _, cdr = next(bag.messages())
        assert bag.deserialize(cdr, connection.msgtype).position[0] == 0.0
    assert sorted(again) == sorted(written)
    assert read(tmp_path / "bag") == written


def test_metadata_is_as_rosbag2_writes_it(tmp_path: Path) -> None:
    with BlackBox(tmp_path / "bag", {"robot": "panda"}) as box:
        fill(box, 3)
    about = yaml.safe_load((tmp_path / "bag" / "metadata.yaml").read_text())["rosbag2_bagfile_information"]
    assert about["version"] == 9
    assert about["relative_file_paths"] == ["bag_0.mcap"]
    assert about["duration"] == {"nanoseconds": 2}
    assert about["starting_time"] == {"nanoseconds_since_epoch": 10**18}
    assert about["message_count"] == 6
    topics = {entry["topic_metadata"]["name"]: entry for entry in about["topics_with_message_count"]}
    assert topics["/joint_states"]["message_count"] == 3
    joints = topics["/joint_states"]["topic_metadata"]
    assert joints["type_description_hash"] == messages.type_hash(JOINTS)
    assert joints["offered_qos_profiles"][0]["reliability"] == "best_effort"
    latched = topics["/wrist/image_raw"]["topic_metadata"]["offered_qos_profiles"][0]
    assert (latched["durability"], latched["history"], latched["depth"]) == ("transient_local", "keep_last", 1)
    assert about["custom_data"] == {"robot": "panda"}
    # The names of all keys are those that another writer of the format uses.
    from rosbags.rosbag2 import StoragePlugin, Writer

    with Writer(tmp_path / "peer", version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        writer.add_connection("/joint_states", JOINTS, typestore=messages.typestore())
    peer = yaml.safe_load((tmp_path / "peer" / "metadata.yaml").read_text())["rosbag2_bagfile_information"]
    assert set(about) == set(peer)
    assert set(joints) == set(peer["topics_with_message_count"][0]["topic_metadata"])


def test_a_bag_without_messages_is_a_bag(tmp_path: Path) -> None:
    with BlackBox(tmp_path / "bag"):
        pass
    with AnyReader([tmp_path / "bag"]) as bag:
        assert bag.message_count == 0
    assert read(tmp_path / "bag") == []


def test_reading_goes_on_while_the_file_grows(tmp_path: Path) -> None:
    with BlackBox(tmp_path / "bag") as box:
        bag = Bag(tmp_path / "bag")
        box.add_topic(topic("/joint_states", JOINTS))
        for number in range(5):
            box.write("/joint_states", number, joint_state(number))
            assert [recorded.received for recorded in bag.read()] == []
            end = box.flush()
            box.write("/joint_states", number + 100, joint_state(number))
            box.flush()
            assert [recorded.received for recorded in bag.read(end)] == [number]
            assert [recorded.received for recorded in bag.read()] == [number + 100]
    assert list(bag.read()) == []


def test_what_was_flushed_survives_a_kill(tmp_path: Path) -> None:
    program = textwrap.dedent(f"""
        import sys, time
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        from pathlib import Path
        from test_black_box import JOINTS, joint_state, topic
        from robot_rl.hardware.recording.black_box import BlackBox
        box = BlackBox(Path({str(tmp_path / "bag")!r}), {{"robot": "panda"}})
        box.add_topic(topic("/joint_states", JOINTS))
        for number in range(1000):
            box.write("/joint_states", number, joint_state(number))
        box.flush()
        box.write("/joint_states", 1000, joint_state(1000))
        print("ready", flush=True)
        time.sleep(60)
    """)
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        with pytest.raises(BlackBoxError, match="still being written"):
            recover(tmp_path / "bag")
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    path = tmp_path / "bag" / "bag_0.mcap"
    assert [received for _, received, _ in read(path)] == list(range(1000))
    assert recover(tmp_path / "bag")
    assert not recover(tmp_path / "bag")
    with AnyReader([tmp_path / "bag"]) as bag:
        assert [time for _, time, _ in bag.messages()] == list(range(1000))
    assert yaml.safe_load((path.parent / "metadata.yaml").read_text())["rosbag2_bagfile_information"]["custom_data"]


@pytest.mark.parametrize("cut", [1, 20, 60, 5000, 700_000])
def test_a_torn_file_is_recovered_up_to_its_last_whole_chunk(tmp_path: Path, cut: int) -> None:
    with BlackBox(tmp_path / "bag") as box:
        written = fill(box, 6)
    whole = box.path.read_bytes()
    (tmp_path / "bag" / "metadata.yaml").unlink()
    box.path.write_bytes(whole[:-cut])
    before = read(box.path)
    assert recover(box.path)
    with box.path.open("rb") as file:
        reader = make_reader(file, validate_crcs=True)
        found = [(channel.topic, message.log_time, message.data) for _, channel, message in reader.iter_messages()]
    assert sorted(found) == sorted(before)
    assert before == written[: len(before)]
    assert len(before) >= len(written) - 4
    with AnyReader([tmp_path / "bag"]) as bag:
        assert bag.message_count == len(before)


def test_a_damaged_chunk_is_left_out(tmp_path: Path) -> None:
    with BlackBox(tmp_path / "bag") as box:
        written = fill(box, 6)
    data = bytearray(box.path.read_bytes())
    data[1_500_000] ^= 1
    box.path.write_bytes(data)
    found = read(tmp_path / "bag")
    assert 0 < len(found) < len(written)
    assert set(found) < set(written)


def test_a_full_disk_is_said_and_loses_nothing_that_was_recorded(tmp_path: Path) -> None:
    room = [3_000_000]

    def pwritev(fd: int, parts: list[bytes], offset: int) -> int:
        """A disk with `room` bytes left, which writes what fits."""
        data = b"".join(parts)[: room[0]]
        if not data:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        room[0] -= len(data)
        return os.pwrite(fd, data, offset)

    box = BlackBox(tmp_path / "bag", pwritev=pwritev)
    box.add_topic(topic("/wrist/image_raw", IMAGE))
    for number in range(3):
        box.write("/wrist/image_raw", number, image(number))
    with pytest.raises(BlackBoxError, match=r"No space left on device: the disk .* is full: free some space"):
        box.write("/wrist/image_raw", 3, image(3))
    written = [0, 1, 2, 3]
    on_disk = [received for _, received, _ in read(box.path)]
    assert on_disk == [0, 1]
    assert box.path.stat().st_size == box.size
    room[0] = 10_000_000  # somebody made room: what waited is written, too
    box.write("/wrist/image_raw", 1000, image(0))
    box.flush()
    assert [received for _, received, _ in read(box.path)] == [*written, 1000]
    room[0] = 0
    with pytest.raises(BlackBoxError, match="full"):
        box.close()
    assert recover(tmp_path / "bag")
    with AnyReader([tmp_path / "bag"]) as bag:
        assert bag.message_count == len(written) + 1


def test_refusals_say_what_to_do(tmp_path: Path) -> None:
    BlackBox(tmp_path / "bag").close()
    with pytest.raises(BlackBoxError, match="exists already"):
        BlackBox(tmp_path / "bag")
    (tmp_path / "file").write_text("")
    with pytest.raises(BlackBoxError, match="recording failed"):
        BlackBox(tmp_path / "file" / "bag")
    with pytest.raises(BagError, match="expected a rosbag2 folder"):
        Bag(tmp_path / "file")
    (tmp_path / "no.mcap").write_text("nothing")
    with pytest.raises(BagError, match="no MCAP file"):
        Bag(tmp_path / "no.mcap")
