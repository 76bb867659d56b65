"""robosuite's Lift with the cube on a moving belt.

The belt is a long plate on a frictionless slide, so heavy that nothing slows it: its speed is part of the physical
state, so that whatever steps, saves or restores a scene needs to know nothing of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from xml.etree import ElementTree

import numpy as np
from robosuite.environments.manipulation.lift import Lift
from robosuite.utils.placement_samplers import UniformRandomSampler

HEIGHT = 0.012
"""Of the belt's surface above the table [m]."""
HALF_SIZE = (0.09, 0.8, 0.005)
"""Of the plate [m]: however far it moves in an episode, it is still below every place that the robot reaches."""
MASS = 1000.0
"""Of the plate [kg]."""


class LiftBelt(Lift):  # type: ignore[misc]
    """See the module.

    Args:
        speed: [low, high] along y, to the robot's left where positive; drawn for each episode [m/s].
        start: [low, high] of the cube's y, from the middle of the table; drawn as well [m].
    """

    def __init__(self, *args: Any, speed: Sequence[float], start: Sequence[float], **kwargs: Any) -> None:
        self._speed, self._start = tuple(speed), tuple(start)
        super().__init__(*args, **kwargs)

    def _load_model(self) -> None:
        x, y, table = self.table_offset
        self.placement_initializer = UniformRandomSampler(
            name="ObjectSampler", x_range=[-0.03, 0.03], y_range=self._start, rotation=None,
            ensure_object_boundary_in_range=False, reference_pos=np.array([x, y, table + HEIGHT]), z_offset=0.001,
            rng=self.rng,
        )  # fmt: skip
        super()._load_model()
        numbers = {
            "size": HALF_SIZE, "friction": self.table_friction, "pos": (x, y, table + HEIGHT - HALF_SIZE[2]),
        }  # fmt: skip
        text = {name: " ".join(f"{value:g}" for value in values) for name, values in numbers.items()}
        belt = ElementTree.SubElement(self.model.worldbody, "body", name="belt", pos=text["pos"])
        ElementTree.SubElement(belt, "joint", name="belt_slide", type="slide", axis="0 1 0", damping="0")
        ElementTree.SubElement(
            belt, "geom", name="belt_collision", type="box", size=text["size"], friction=text["friction"],
            mass=f"{MASS:g}", group="0",
        )  # fmt: skip
        ElementTree.SubElement(
            belt, "geom", name="belt_visual", type="box", size=text["size"], material="belt", mass="0",
            contype="0", conaffinity="0", group="1",
        )  # fmt: skip
        ElementTree.SubElement(
            self.model.asset, "texture", name="belt", type="2d", builtin="checker", width="64", height="64",
            rgb1="0.2 0.2 0.2", rgb2="0.3 0.3 0.3",
        )  # fmt: skip
        ElementTree.SubElement(self.model.asset, "material", name="belt", texture="belt", texrepeat="2 16")
        # MuJoCo's solver stops relative to the mean inertia: with the belt's in it, contacts would be solved coarsely.
        ElementTree.SubElement(self.model.root, "statistic", meaninertia="1")

    def _reset_internal(self) -> None:
        super()._reset_internal()
        velocity = self.rng.uniform(*self._speed)
        self.sim.data.set_joint_qvel(self.cube.joints[0], np.array([0.0, velocity, 0.0, 0.0, 0.0, 0.0]))
        self.sim.data.set_joint_qvel("belt_slide", velocity)

    def _check_success(self) -> bool:
        height = self.sim.data.body_xpos[self.cube_body_id][2]
        return bool(height > self.table_offset[2] + HEIGHT + 0.04)
