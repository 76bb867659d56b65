"""Questions to the kernel about cameras: its structures as a C compiler lays them out, and a device that answers."""

import os
import shutil
import subprocess

import pytest

from robot_rl.hardware.cameras import v4l2

HEADER = "/usr/include/linux/videodev2.h"


@pytest.mark.skipif(not (shutil.which("cc") and os.path.exists(HEADER)), reason="needs a C compiler and the header")  # noqa: PTH110
def test_requests_are_those_of_the_header(tmp_path):
    names = ("QUERYCAP", "ENUM_FMT", "G_FMT", "S_FMT", "ENUM_FRAMESIZES", "ENUM_FRAMEINTERVALS")
    numbers = " ".join(f'printf("%lu ", VIDIOC_{name});' for name in names)
    kinds = ("capability", "fmtdesc", "frmsizeenum", "frmivalenum", "format")
    numbers += " ".join(f'printf("%zu ", sizeof(struct v4l2_{kind}));' for kind in kinds)
    numbers += (
        'printf("%zu %zu %zu", offsetof(struct v4l2_capability, device_caps), '
        "offsetof(struct v4l2_fmtdesc, pixelformat), offsetof(struct v4l2_frmivalenum, discrete));"
    )
    source = tmp_path / "numbers.c"
    source.write_text(
        f"#include <linux/videodev2.h>\n#include <stddef.h>\n#include <stdio.h>\nint main(void) {{ {numbers} }}"
    )
    subprocess.run(["cc", source, "-o", tmp_path / "numbers"], check=True)
    told = subprocess.run([tmp_path / "numbers"], check=True, capture_output=True, text=True).stdout.split()
    ours = [getattr(v4l2, name) for name in names]
    ours += [v4l2._CAPABILITY, v4l2._FMTDESC, v4l2._FRMSIZE, v4l2._FRMIVAL, v4l2._FORMAT, 88, 44, 20]
    assert [int(number) for number in told] == ours


def test_devices_are_listed_with_their_names(tmp_path):
    for number, name in ((10, "Wide"), (2, "Cam: UVC")):
        (tmp_path / f"video{number}").mkdir()
        (tmp_path / f"video{number}" / "name").write_text(name + "\n")
    assert v4l2.devices(tmp_path) == [("/dev/video2", "Cam: UVC"), ("/dev/video10", "Wide")]
    assert v4l2.devices(tmp_path / "nowhere") == []


def test_formats_of_a_device(with_camera):
    code = """
from robot_rl.hardware.cameras import v4l2
print(json.dumps([[one.fourcc, one.size, one.rates] for one in v4l2.formats(CAMERA)] + v4l2.formats(METADATA)))"""
    assert with_camera(code) == [["YUYV", [48, 64], [30.0, 15.0]], ["YUYV", [16, 32], [30.0]]]


def test_who_uses_a_device(tmp_path):
    path = tmp_path / "video0"
    path.touch()
    assert v4l2.users(str(path)) == []
    with path.open() as file, subprocess.Popen(["sleep", "60"], stdin=file) as process:
        assert v4l2.users(str(path)) == [f"sleep (process {process.pid})"]
        process.kill()
