"""What can be randomised in a model, in the state of a reset and in a controller: small recipes that draw and apply.

Every recipe changes nominal values, which `Randomizer` has put back just before. What it draws are plain JSON types,
which applied again give the same scene.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import mujoco
import numpy as np

Record = Any
"""Numbers of one episode: mappings, lists, numbers and strings."""

TEXTURES = ("flat", "gradient", "checker", "noise")


class Recipe(Protocol):
    """Draws numbers and applies them."""

    def draw(self, generator: np.random.Generator) -> Record:
        """Numbers for one episode."""

    def apply(self, record: Record) -> None:
        """Change nominal values by numbers drawn."""


class ModelRecipe(Recipe, Protocol):
    """One that changes the model."""

    arrays: Sequence[np.ndarray]
    """What it changes, views of the model."""


class Scale:
    """Multiplies rows of model arrays, each name by a factor from [low, high]; `together`: all by the same."""

    def __init__(
        self, arrays: Sequence[np.ndarray], rows: Mapping[str, int], interval: Sequence[float], together: bool = False
    ) -> None:
        self.arrays: Sequence[np.ndarray] = arrays
        self._rows, self._together = rows, together
        self._low, self._high = interval

    def draw(self, generator: np.random.Generator) -> Record:
        factors = generator.uniform(self._low, self._high, 1 if self._together else len(self._rows))
        return dict(zip(self._rows, np.broadcast_to(factors, len(self._rows)).tolist(), strict=True))

    def apply(self, record: Record) -> None:
        for name, factor in record.items():
            for array in self.arrays:
                array[self._rows[name]] *= factor


class Colour:
    """Adds offsets from ±`shift` to red, green and blue of rows of an rgba array, within [0, 1]."""

    def __init__(self, array: np.ndarray, rows: Mapping[str, int], shift: float) -> None:
        self.arrays: Sequence[np.ndarray] = [array]
        self._rows, self._shift = rows, shift

    def draw(self, generator: np.random.Generator) -> Record:
        offsets = generator.uniform(-self._shift, self._shift, (len(self._rows), 3))
        return dict(zip(self._rows, offsets.tolist(), strict=True))

    def apply(self, record: Record) -> None:
        (array,) = self.arrays
        for name, offset in record.items():
            row = self._rows[name]
            array[row, :3] = np.clip(array[row, :3] + offset, 0, 1)


class Texture:
    """Paints textures anew: flat, a gradient, a checker or noise, of two colours.

    Attributes:
        painted: ids of the textures, which a renderer has to take over.
    """

    def __init__(self, model: mujoco.MjModel, textures: Mapping[str, int], kinds: Sequence[str]) -> None:
        self._kinds, self.painted = list(kinds), list(textures.values())
        self._images: dict[str, np.ndarray] = {}
        for name, index in textures.items():
            shape = int(model.tex_height[index]), int(model.tex_width[index]), int(model.tex_nchannel[index])
            start = int(model.tex_adr[index])
            self._images[name] = model.tex_data[start : start + int(np.prod(shape))].reshape(shape)
        self.arrays: Sequence[np.ndarray] = list(self._images.values())

    def draw(self, generator: np.random.Generator) -> Record:
        return {
            name: {
                "kind": self._kinds[generator.integers(len(self._kinds))],
                "colours": generator.integers(0, 256, (2, 3)).tolist(),
                "cells": int(generator.integers(2, 17)),
                "seed": int(generator.integers(2**31)),
            }
            for name in self._images
        }

    def apply(self, record: Record) -> None:
        for name, values in record.items():
            image = self._images[name]
            height, width, channels = image.shape
            cells = values["cells"]
            blend = _pattern(values["kind"], cells, values["seed"])
            # A cube texture is six squares below each other: the pattern repeats on each.
            side = min(height, width)
            rows, columns = (np.arange(size) % side * len(blend) // side for size in (height, width))
            first, second = (np.array(colour, float) for colour in values["colours"])
            painted = np.rint(first + blend[..., None] * (second - first)).astype(np.uint8)
            # Columns first: rows of the small pattern are stretched once, then copied whole.
            image[..., : min(channels, 3)] = painted[..., : min(channels, 3)].take(columns, 1).take(rows, 0)


def _pattern(kind: str, cells: int, seed: int) -> np.ndarray:
    """Share of the second colour, [size, size] in [0, 1]."""
    if kind == "flat":
        return np.zeros((1, 1))
    if kind == "gradient":
        return np.broadcast_to(np.linspace(0, 1, 64)[:, None], (64, 64))
    if kind == "checker":
        return np.add.outer(np.arange(cells), np.arange(cells)) % 2.0
    return np.random.default_rng(seed).uniform(size=(8 * cells, 8 * cells))


class CameraPose:
    """Moves cameras by up to ±`position` m along, and turns them by up to ±`rotation` rad about, their own axes."""

    def __init__(self, model: mujoco.MjModel, cameras: Mapping[str, int], position: float, rotation: float) -> None:
        self._model, self._cameras = model, cameras
        self._width = np.repeat([position, rotation], 3)
        self.arrays: Sequence[np.ndarray] = [model.cam_pos, model.cam_quat]

    def draw(self, generator: np.random.Generator) -> Record:
        offsets = generator.uniform(-self._width, self._width, (len(self._cameras), 6))
        return dict(zip(self._cameras, offsets.tolist(), strict=True))

    def apply(self, record: Record) -> None:
        for name, offset in record.items():
            index, moved, turned = self._cameras[name], np.empty(3), np.empty(4)
            quaternion = self._model.cam_quat[index]
            mujoco.mju_rotVecQuat(moved, np.array(offset[:3]), quaternion)
            mujoco.mju_mulQuat(turned, quaternion, quaternion_of(offset[3:]))
            self._model.cam_pos[index] += moved
            self._model.cam_quat[index] = turned


class Light:
    """Moves lights by up to ±`position` m, turns them by up to ±`direction` rad, scales their brightness."""

    def __init__(
        self,
        model: mujoco.MjModel,
        lights: Mapping[str, int],
        position: float,
        direction: float,
        scale: Sequence[float],
    ) -> None:
        self._model, self._lights = model, lights
        self._width = np.repeat([position, direction], 3)
        self._low, self._high = scale
        head = model.vis.headlight
        self._head = [head.ambient, head.diffuse, head.specular]
        self._colours = [model.light_ambient, model.light_diffuse, model.light_specular]
        self.arrays: Sequence[np.ndarray] = [model.light_pos, model.light_dir, *self._colours, *self._head]

    def draw(self, generator: np.random.Generator) -> Record:
        record: dict[str, Any] = {"headlight": {"brightness": generator.uniform(self._low, self._high)}}
        for name in self._lights:
            offset = generator.uniform(-self._width, self._width)
            record[name] = {
                "position": offset[:3].tolist(),
                "direction": offset[3:].tolist(),
                "brightness": generator.uniform(self._low, self._high),
            }
        return record

    def apply(self, record: Record) -> None:
        for name, values in record.items():
            if name == "headlight":
                for colour in self._head:
                    colour[:] = np.clip(colour * values["brightness"], 0, 1)
                continue
            index, turned = self._lights[name], np.empty(3)
            mujoco.mju_rotVecQuat(turned, self._model.light_dir[index], quaternion_of(values["direction"]))
            self._model.light_pos[index] += values["position"]
            self._model.light_dir[index] = turned
            for array in self._colours:
                array[index] = np.clip(array[index] * values["brightness"], 0, 1)


class InitialJoints:
    """Adds up to ±`shift` rad (m for slides) to joints of the initial state, within their range."""

    def __init__(self, data: mujoco.MjData, joints: Mapping[str, int], shift: float) -> None:
        self._data, self._model, self._joints, self._shift = data, data.model, joints, shift

    def draw(self, generator: np.random.Generator) -> Record:
        offsets = generator.uniform(-self._shift, self._shift, len(self._joints))
        return dict(zip(self._joints, offsets.tolist(), strict=True))

    def apply(self, record: Record) -> None:
        for name, offset in record.items():
            joint = self._joints[name]
            address = self._model.jnt_qposadr[joint]
            moved = self._data.qpos[address] + offset
            limited = bool(self._model.jnt_limited[joint])
            self._data.qpos[address] = np.clip(moved, *self._model.jnt_range[joint]) if limited else moved


class InitialObjects:
    """Moves free bodies of the initial state by up to ±`position` m horizontally and turns them by up to ±`yaw` rad.

    `together`: as one rigid arrangement, about its centre, so that what lies in or on another stays there.
    """

    def __init__(
        self, data: mujoco.MjData, addresses: Mapping[str, int], position: float, yaw: float, together: bool
    ) -> None:
        self._data, self._addresses, self._together = data, addresses, together
        self._width = np.array([position, position, yaw])

    def draw(self, generator: np.random.Generator) -> Record:
        offsets = generator.uniform(-self._width, self._width, (1 if self._together else len(self._addresses), 3))
        offsets = np.broadcast_to(offsets, (len(self._addresses), 3))
        return dict(zip(self._addresses, offsets.tolist(), strict=True))

    def apply(self, record: Record) -> None:
        poses = {name: self._data.qpos[self._addresses[name] :][:7] for name in record}
        centre = np.mean([pose[:2] for pose in poses.values()], axis=0) if self._together and poses else None
        for name, (x, y, yaw) in record.items():
            pose, turn, turned, across = poses[name], quaternion_of([0, 0, yaw]), np.empty(4), np.empty(3)
            mujoco.mju_mulQuat(turned, turn, pose[3:].copy())
            pose[3:] = turned
            if centre is not None:
                mujoco.mju_rotVecQuat(across, np.append(pose[:2] - centre, 0.0), turn)
                pose[:2] = centre + across[:2]
            pose[:2] += x, y


class Gains:
    """Scales numbers that are attributes of a controller."""

    def __init__(self, controller: Any, nominal: Mapping[str, float], interval: Sequence[float]) -> None:
        self._controller, self._nominal = controller, nominal
        self._low, self._high = interval

    def draw(self, generator: np.random.Generator) -> Record:
        return {name: generator.uniform(self._low, self._high) for name in self._nominal}

    def apply(self, record: Record) -> None:
        for name, factor in record.items():
            setattr(self._controller, name, self._nominal[name] * factor)

    def restore(self) -> None:
        """Put the nominal gains back."""
        for name, value in self._nominal.items():
            setattr(self._controller, name, value)


def quaternion_of(vector: Sequence[float] | np.ndarray) -> np.ndarray:
    """Quaternion [4] wxyz of a rotation vector [3] in rad."""
    quaternion, axis = np.empty(4), np.array(vector, float)
    angle = mujoco.mju_normalize3(axis)
    mujoco.mju_axisAngle2Quat(quaternion, axis, angle)
    return quaternion
