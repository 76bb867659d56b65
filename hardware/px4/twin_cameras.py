"""What the cameras of a simulated vehicle see: the scene of a task, from where the vehicle is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from robot_rl.hardware import bindings
from robot_rl.hardware.px4.flight_state import Odometry
from robot_rl.hardware.px4.vehicle_file import VehicleFile
from robot_rl.hardware.robot_file import RobotFileError, Stream
from robot_rl.hardware.twin.stream import Schedule
from robot_rl.sim.drone.world import DroneWorld
from robot_rl.sim.spec import resolve

INFO = "sensor_msgs/msg/CameraInfo"


class TwinCameras:
    """Renders pictures whenever they are due. The scene is that of the simulator; nothing in it touches the vehicle.

    Args:
        robot: whose file says where its cameras publish.
        task: `drone/...`.
        sizes: height and width by camera.
        seed: of the scene.

    Attributes:
        streams: by camera.

    Raises:
        RobotFileError, SpecError: there is no such camera, task or vehicle.
        RenderError: nothing can be rendered here.
    """

    def __init__(self, robot: VehicleFile, task: str, sizes: Mapping[str, tuple[int, int]], seed: int = 0) -> None:
        if unknown := sorted(set(sizes) - set(robot.cameras)):
            raise RobotFileError(robot.name, [f"cameras: no {', '.join(unknown)}; enter where it publishes"])
        cameras = {name: list(size) for name, size in sizes.items()}
        spec = {"task": task, "robot": robot.vehicle, "cameras": cameras, "randomization": "none"}
        self._world, self._seed, self._sizes = DroneWorld(resolve(spec), 1), -1, sizes
        features = self._world.contract.observation
        self.streams = {name: replace(robot.cameras[name], feature=features[name]) for name in sizes}
        rate = self._world.contract.rate_hz
        self._due = {name: Schedule(stream.rate_hz or rate) for name, stream in self.streams.items()}
        self.set_scene(seed)
        for name, size in sizes.items():
            self._world.image(0, name, *size)  # the first picture takes a second, which a flight would miss

    def set_scene(self, seed: int) -> None:
        """Show the scene of a seed from now on."""
        if seed != self._seed:
            self._seed = seed
            self._world.begin([0], [seed])

    def look(self, vehicle: Odometry, time: float) -> Iterator[tuple[Stream, Any, Any]]:
        """Streams whose picture is due at a time [s], with Image and CameraInfo, stamped with it."""
        for name, stream in self.streams.items():
            if self._due[name].due(time):
                self._world.place(np.concatenate(vehicle[1:])[None])
                picture = self._world.image(0, name, *self._sizes[name])
                yield stream, bindings.encode_observation(stream, picture, time), _info(stream, time)


def _info(stream: Stream, time: float) -> Any:
    return bindings.encode_camera_info(stream, time) if stream.camera_info else None
