import errno
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from robot_rl.atomic_folder import recover, replace_folder


def test_recover_finishes_or_undoes_a_broken_exchange(tmp_path: Path) -> None:
    target = tmp_path / "last"
    replace_folder(target, lambda folder: _fill(folder, "1"))
    # Killed while writing: the new folder is incomplete, the old one stands.
    (tmp_path / ".last.new").mkdir()
    recover(target)
    assert (target / "value").read_text() == "1"
    # Killed between the two renames: the new folder is complete.
    _fill_new(tmp_path / ".last.new", "2")
    target.rename(tmp_path / ".last.old")
    recover(target)
    assert (target / "value").read_text() == "2"
    assert [path.name for path in tmp_path.iterdir()] == ["last"]


def test_a_write_that_the_system_refuses_leaves_the_old_folder_and_is_its_error(tmp_path: Path) -> None:
    target = tmp_path / "last"
    replace_folder(target, lambda folder: _fill(folder, "1"))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))
    try:
        with pytest.raises(OSError, match="File too large") as error:
            replace_folder(target, lambda folder: save_file({"a": np.zeros(100_000)}, folder / "model.safetensors"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert error.value.errno == errno.EFBIG
    assert error.value.filename == str(target)
    assert (target / "value").read_text() == "1"
    assert [path.name for path in tmp_path.iterdir()] == ["last"]


def _fill(folder: Path, value: str) -> None:
    (folder / "value").write_text(value)


def _fill_new(folder: Path, value: str) -> None:
    folder.mkdir()
    _fill(folder, value)


WRITER = """
import sys
from pathlib import Path
from robot_rl.atomic_folder import replace_folder
target = Path(sys.argv[1])
number = 0
while True:
    number += 1
    def write(folder):
        for name in "abcd":
            (folder / name).write_text(str(number))
    replace_folder(target, write)
    print(number, flush=True)
"""


def test_a_kill_at_any_moment_leaves_a_whole_folder(tmp_path: Path) -> None:
    target = tmp_path / "last"
    for attempt in range(8):
        process = subprocess.Popen([sys.executable, "-c", WRITER, str(target)], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(0.003 * attempt)
        os.kill(process.pid, signal.SIGKILL)
        done = [int(line) for line in process.stdout.read().split()]
        process.wait()
        process.stdout.close()
        recover(target)
        values = {(target / name).read_text() for name in "abcd"}
        assert len(values) == 1
        assert int(values.pop()) >= (done[-1] if done else 1)
