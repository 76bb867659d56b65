"""`robot-rl doctor`: what works on this machine, and the command that mends what does not."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

HELP = "usage: robot-rl doctor\n\nTries each part of the stack and prints the command that mends what does not work."

NOTABLE = ("numpy", "torch", "mujoco", "zarr", "diffusers", "hydra-core", "imagecodecs", "av", "daqp", "ruckig")

ROBOSUITE = "1.5.2"

RENDER_ONE_PIXEL = """
import mujoco
model = mujoco.MjModel.from_xml_string("<mujoco><worldbody><light/><geom size='1'/></worldbody></mujoco>")
data = mujoco.MjData(model)
mujoco.mj_forward(model, data)
renderer = mujoco.Renderer(model, 16, 16)
renderer.update_scene(data)
assert renderer.render().any()
"""


@dataclass(frozen=True)
class Finding:
    """One line of the report. `mend` is the command or the step that helps, empty when nothing is wrong."""

    part: str
    state: str
    mend: str = ""
    essential: bool = False


def main(arguments: list[str]) -> int:
    """Print the findings; returns 1 when something essential is missing."""
    if arguments:
        print(HELP)
        return 0 if set(arguments) <= {"--help", "-h"} else 2
    status = 0
    for check in (_python, _packages, _robosuite, _rendering, _accelerator, _extras, _ros, _devices, _machine):
        try:
            findings = [*check()]
        except ImportError as error:
            findings = [Finding(check.__name__[1:], f"cannot be tried: {error}", "pip install what is missing")]
        for finding in findings:
            mark = "ok  " if not finding.mend else "FAIL" if finding.essential else "note"
            print(f"{mark}  {finding.part:18} {finding.state}")
            if finding.mend:
                print(f"      {'':18} → {finding.mend}")
            status |= int(bool(finding.mend) and finding.essential)
    return status


def _python() -> Iterator[Finding]:
    good = (3, 11) <= sys.version_info[:2] <= (3, 12)
    state = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    yield Finding("python", state, "" if good else "use Python 3.11 or 3.12", essential=True)


def _packages() -> Iterator[Finding]:
    """The packages that people ask about, and of all others that this one requires those that are wrong."""
    from packaging.requirements import Requirement

    requirements = [Requirement(line) for line in importlib.metadata.requires("robot_rl") or ()]
    for needed in requirements:
        if needed.marker is not None and not needed.marker.evaluate({"extra": ""}):
            continue
        version = _version(needed.name)
        if version and needed.specifier.contains(version, prereleases=True):
            if needed.name in NOTABLE:
                yield Finding(needed.name, version)
        else:
            state = f"{version}, expected {needed.specifier}" if version else "missing"
            yield Finding(needed.name, state, f"pip install '{needed.name}{needed.specifier}'", essential=True)


def _robosuite() -> Iterator[Finding]:
    version = _version("robosuite")
    mend = (
        f"pip install --no-deps robosuite=={ROBOSUITE}   (its own pins ask for NumPy 1; ours are tested with NumPy 2)"
    )
    without = "missing: no arm simulation, no models of panda and ur5e"
    yield Finding("robosuite", version or without, "" if version == ROBOSUITE else mend)


def _rendering() -> Iterator[Finding]:
    if importlib.util.find_spec("mujoco") is None:
        return
    works = [backend for backend in ("egl", "osmesa") if _renders(backend)]
    mend = (
        "sudo apt-get install libegl1 libgl1   (or libosmesa6); on other systems the packages of EGL and libGL. "
        "Without them cameras and videos are off, all else works with MUJOCO_GL=disabled"
    )
    yield Finding("rendering", ", ".join(works) if works else "no EGL and no OSMesa", "" if works else mend)


def _renders(backend: str) -> bool:
    environment = {**os.environ, "MUJOCO_GL": backend, "PYOPENGL_PLATFORM": backend}
    run = subprocess.run([sys.executable, "-c", RENDER_ONE_PIXEL], env=environment, capture_output=True, check=False)
    return run.returncode == 0


def _accelerator() -> Iterator[Finding]:
    if importlib.util.find_spec("torch") is None:
        return
    import torch

    if torch.cuda.is_available():
        names = ", ".join(torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count()))
        yield Finding("accelerator", f"{names} (CUDA {torch.version.cuda})")
    else:
        yield Finding("accelerator", f"none; training runs on the CPU with torch {torch.__version__}")


def _extras() -> Iterator[Finding]:
    extras = {
        "convert": "h5py", "export": "onnxruntime", "feetech": "pyserial", "multigpu": "accelerate",
        "px4": "pyulog", "view": "rerun-sdk", "web": "aiohttp",
    }  # fmt: skip
    for extra, package in extras.items():
        version = _version(package)
        mend = "" if version else f'pip install "robot_rl[{extra}]"'
        yield Finding(f"[{extra}]", f"{package} {version}" if version else f"{package} is not installed", mend)


def _ros() -> Iterator[Finding]:
    from robot_rl.hardware.ros2 import dds_configuration
    from robot_rl.hardware.ros2.graph import GraphError, adapter, missing_rclpy

    names = ("ROS_DISTRO", "RMW_IMPLEMENTATION", "ROBOT_RL_ROS", *dds_configuration.VARIABLES)
    found = ", ".join(f"{name}={os.environ[name]}" for name in names if os.environ.get(name))
    try:
        chosen, settings = adapter(), dds_configuration.configuration()
    except GraphError as error:
        yield Finding("ROS 2", found, str(error))
        return
    mend = ""
    if chosen == "dds" and not os.environ.get("ROBOT_RL_ROS") and importlib.util.find_spec("rclpy"):
        mend = f"rclpy is there but cannot be imported: {missing_rclpy()}"
    if chosen == "rclpy":
        state = f"by rclpy, domain {settings.domain_id}"
    elif _version("cyclonedds") and _version("rosbags"):
        state = f"by DDS (cyclonedds {_version('cyclonedds')}), domain {settings.domain_id}, {settings.reach}"
    else:
        state, mend = "neither rclpy nor cyclonedds: no deployment", 'source ROS 2, or pip install "robot_rl[ros]"'
    yield Finding("ROS 2", f"{state}; {found or 'no ROS variables are set'}", mend)


def _devices() -> Iterator[Finding]:
    """Cameras, and serial ports that a robot may be on."""
    from robot_rl.hardware.cameras import v4l2
    from robot_rl.hardware.feetech.bus import GROUP, PortError, ports

    cameras = v4l2.devices()
    closed = [path for path, _ in cameras if not os.access(path, os.R_OK | os.W_OK)]
    mend = f"{', '.join(closed)}: sudo usermod -aG video $USER   # then log in again" if closed else ""
    state = "; ".join(f"{path} ({name})" for path, name in cameras) or "none"
    yield Finding("cameras", f"{state}; `robot-rl cameras check` tries them" if cameras else state, mend)
    try:
        found = [port for port, _ in ports()]
    except PortError:
        return  # the missing extra is named above
    closed = [port for port in found if not os.access(port, os.R_OK | os.W_OK)]
    yield Finding("serial ports", ", ".join(found) or "none", f"{', '.join(closed)}: {GROUP}" if closed else "")


def _machine() -> Iterator[Finding]:
    import psutil

    memory = psutil.virtual_memory().available / 2**30
    free = shutil.disk_usage(Path.cwd()).free / 2**30
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    state = f"{cores} cores, {memory:.1f} GB of memory and {free:.1f} GB of disk free"
    yield Finding("machine", state, "free some disk: a recording stops when it is full" if free < 1 else "")


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""
