"""A V4L2 camera for processes that a test starts: OpenCV's own driver code, against a stand-in for the kernel's."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
CAMERA, METADATA = "/dev/video_of_test", "/dev/video_of_test_metadata"


@pytest.fixture(scope="session")
def fake_v4l2(tmp_path_factory):
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None or not sys.platform.startswith("linux"):
        pytest.skip("needs Linux and a C compiler")
    library = tmp_path_factory.mktemp("v4l2") / "fake_v4l2.so"
    command = [compiler, "-shared", "-fPIC", "-O1", "-o", library, HERE / "fake_v4l2.c", "-ldl"]
    built = subprocess.run(command, capture_output=True, text=True, check=False)
    if built.returncode:
        pytest.skip(f"the C compiler cannot build the camera: {built.stderr[-300:]}")
    return library


@pytest.fixture
def with_camera(fake_v4l2, tmp_path):
    """Runs Python with the camera `CAMERA`: its last line of output, as JSON. `states` are files of the fake."""
    folder = tmp_path / "state"
    folder.mkdir()

    def run(code, *states, latency=0.0):
        for state in states:
            (folder / state).touch()
        environment = os.environ | {
            "LD_PRELOAD": str(fake_v4l2), "FAKE_STATE": str(folder), "FAKE_CAMERA": CAMERA, "FAKE_METADATA": METADATA,
            "FAKE_LATENCY": str(latency), "OMP_NUM_THREADS": "1",
        }  # fmt: skip
        head = f"import json, time\nfrom pathlib import Path\nCAMERA, METADATA = {CAMERA!r}, {METADATA!r}\n"
        head += f"STATE = Path({str(folder)!r})\n"
        command = [sys.executable, "-c", head + code]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
        for state in states:
            (folder / state).unlink(missing_ok=True)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1])

    return run
