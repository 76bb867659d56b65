"""Domain randomisation: a configuration of what varies from episode to episode, drawn at each reset and recorded.

Drawing and applying are apart: `draw` gives plain numbers, `apply` brings a scene from its nominal values to them. The
same numbers give the same scene, so an episode's record is enough to repeat it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import mujoco
import numpy as np

from robot_rl.sim.randomized_model import (
    TEXTURES,
    CameraPose,
    Colour,
    Gains,
    InitialJoints,
    InitialObjects,
    Light,
    ModelRecipe,
    Recipe,
    Scale,
    Texture,
)
from robot_rl.sim.scene_parts import SceneParts
from robot_rl.sim.spec import SpecError

Options = dict[str, Any]

MODEL: dict[str, Options] = {
    "mass": {"bodies": "objects", "scale": None, "together": False},
    "friction": {"geoms": "objects", "scale": None, "together": False},
    "joint_damping": {"joints": "robots", "scale": None, "together": False},
    "light": {"lights": "*", "position": 0.0, "direction": 0.0, "scale": [1.0, 1.0]},
    "colour": {"materials": "*", "shift": None},
    "geom_colour": {"geoms": "*", "shift": None},
    "texture": {"textures": "*", "kinds": list(TEXTURES)},
    "camera_pose": {"cameras": "*", "position": 0.0, "rotation": 0.0},
    "field_of_view": {"cameras": "*", "scale": None},
}
"""Entries that change the model, with their options; those of None have to be given."""

STATE: dict[str, Options] = {
    "initial_joints": {"joints": "robots", "shift": None},
    "initial_objects": {"bodies": "objects", "position": 0.0, "yaw": 0.0, "together": False},
}
"""Entries that change the state after a reset."""

CONTROLLER: dict[str, Options] = {"controller_gains": {"scale": None}}
GAINS = ("natural_frequency", "damping_ratio", "stiffness", "damping")
LOOP = ("action_delay", "observation_delay", "observation_noise")
"""Entries that `robot_rl.sim.disturbance.Disturbance` reads."""

# What MuJoCo derives from masses at the nominal posture (mj_setConst), and what it would derive anew beside that.
_DERIVED = (
    "body_subtreemass", "body_invweight0", "dof_M0", "dof_invweight0", "tendon_invweight0", "actuator_acc0",
)  # fmt: skip
_UNRELATED = (
    "body_pos", "body_quat", "cam_pos0", "cam_poscom0", "cam_mat0", "light_pos0", "light_poscom0", "light_dir0",
    "tendon_length0", "actuator_length0",
)  # fmt: skip


class Randomizer:
    """Varies one scene.

    Args:
        data: of the scene; its model holds nominal values now.
        config: entry to options, see `MODEL`, `STATE` and `CONTROLLER`; those of `LOOP` are left to `Disturbance`, and
            `name` is ignored. Parts are chosen by names, patterns with `*`, or the words of `scene_parts.GROUPS`.
        objects, robots: ids of bodies that the words `objects` and `robots` stand for.
        controller: whose gains vary, see `GAINS`.

    Raises:
        SpecError: an entry, an option or a name is unknown; the message lists what exists.
    """

    def __init__(
        self,
        data: mujoco.MjData,
        config: Mapping[str, Any],
        objects: Iterable[int] = (),
        robots: Iterable[int] = (),
        controller: Any = None,
    ) -> None:
        known = {**MODEL, **STATE, **CONTROLLER}
        if unknown := sorted(set(config) - set(known) - set(LOOP) - {"name"}):
            raise SpecError(f"randomization: no entry {', '.join(unknown)}; there are: {', '.join([*known, *LOOP])}")
        self._data, self._model = data, data.model
        parts = SceneParts(self._model, objects, robots)
        options = {name: _options(name, config[name], known[name]) for name in known if name in config}
        self._changes = {name: _CHANGES[name](parts, values) for name, values in options.items() if name in MODEL}
        self._placements = {
            name: _PLACEMENTS[name](data, parts, values) for name, values in options.items() if name in STATE
        }
        self._gains = {
            name: _gains(controller, values["scale"]) for name, values in options.items() if name in CONTROLLER
        }
        self._recipes: dict[str, Recipe] = {**self._changes, **self._placements, **self._gains}
        arrays = [array for change in self._changes.values() for array in change.arrays]
        if "mass" in self._changes:
            arrays += [getattr(self._model, name) for name in _DERIVED]
            self._poses = {name: getattr(self._model, name).copy() for name in ("body_pos", "body_quat")}
            self._meaninertia, self._meanmass = self._model.stat.meaninertia, self._model.stat.meanmass
            self._scratch = mujoco.MjData(self._model)
        self._nominal = [(array, array.copy()) for array in arrays]

    @property
    def textures(self) -> list[int]:
        """Ids of the textures that `apply` paints; show them by `Renderer.upload_texture`."""
        texture = self._changes.get("texture")
        return texture.painted if isinstance(texture, Texture) else []

    def draw(self, generator: np.random.Generator) -> dict[str, Any]:
        """Numbers for one episode, by entry: plain JSON types."""
        return {name: recipe.draw(generator) for name, recipe in self._recipes.items()}

    def apply(self, record: Mapping[str, Any]) -> None:
        """Bring model and controller from their nominal values to numbers drawn, whatever was applied before.

        Raises:
            SpecError: the numbers belong to another configuration.
        """
        if missing := sorted(set(self._recipes) - set(record)):
            raise SpecError(f"the record of a randomisation lacks {', '.join(missing)}: it is of another configuration")
        self.restore()
        try:
            for name in (*self._changes, *self._gains):
                self._recipes[name].apply(record[name])
        except KeyError as error:
            self.restore()
            raise SpecError(f"the record of a randomisation names {error}, which this scene lacks") from error
        if "mass" in self._changes:
            self._derive()

    def place(self, record: Mapping[str, Any]) -> None:
        """Change the state that a reset has just set by numbers drawn; `mj_forward` is due afterwards."""
        for name, placement in self._placements.items():
            placement.apply(record[name])

    def settle(self, entry: str, row: int) -> None:
        """What was set from outside in a row of the arrays that an entry changes is nominal from now on."""
        arrays = self._changes[entry].arrays if entry in self._changes else ()
        for array, nominal in self._nominal:
            if any(array is each for each in arrays):
                nominal[row] = array[row]

    def restore(self) -> None:
        """Put the nominal values back, bit by bit."""
        for array, nominal in self._nominal:
            array[...] = nominal
        if "mass" in self._changes:
            self._model.stat.meaninertia, self._model.stat.meanmass = self._meaninertia, self._meanmass
        for gains in self._gains.values():
            gains.restore()

    def _derive(self) -> None:
        """Let MuJoCo derive what follows from masses, in the nominal posture and without touching anything else."""
        kept = {name: getattr(self._model, name).copy() for name in _UNRELATED}
        for name, nominal in self._poses.items():
            getattr(self._model, name)[...] = nominal
        mujoco.mj_setConst(self._model, self._scratch)
        for name, values in kept.items():
            getattr(self._model, name)[...] = values


def _mass(parts: SceneParts, options: Options) -> ModelRecipe:
    model, bodies = parts.model, parts.bodies(options["bodies"], "mass")
    return Scale([model.body_mass, model.body_inertia], bodies, options["scale"], options["together"])


def _friction(parts: SceneParts, options: Options) -> ModelRecipe:
    geoms = parts.geoms(options["geoms"], "friction")
    return Scale([parts.model.geom_friction], geoms, options["scale"], options["together"])


def _joint_damping(parts: SceneParts, options: Options) -> ModelRecipe:
    joints = parts.joints(options["joints"], "joint_damping")
    dofs = {name: int(parts.model.jnt_dofadr[joint]) for name, joint in joints.items()}
    return Scale([parts.model.dof_damping], dofs, options["scale"], options["together"])


def _light(parts: SceneParts, options: Options) -> ModelRecipe:
    lights = parts.lights(options["lights"], "light")
    return Light(parts.model, lights, options["position"], options["direction"], options["scale"])


def _colour(parts: SceneParts, options: Options) -> ModelRecipe:
    return Colour(parts.model.mat_rgba, parts.materials(options["materials"], "colour"), options["shift"])


def _geom_colour(parts: SceneParts, options: Options) -> ModelRecipe:
    return Colour(parts.model.geom_rgba, parts.bare_geoms(options["geoms"], "geom_colour"), options["shift"])


def _texture(parts: SceneParts, options: Options) -> ModelRecipe:
    kinds = options["kinds"]
    if isinstance(kinds, str) or not kinds or not all(kind in TEXTURES for kind in kinds):
        raise SpecError(f"randomization texture.kinds: expected a list of {', '.join(TEXTURES)}; got {kinds!r}")
    return Texture(parts.model, parts.textures(options["textures"], "texture"), options["kinds"])


def _camera_pose(parts: SceneParts, options: Options) -> ModelRecipe:
    cameras = parts.cameras(options["cameras"], "camera_pose")
    return CameraPose(parts.model, cameras, options["position"], options["rotation"])


def _field_of_view(parts: SceneParts, options: Options) -> ModelRecipe:
    return Scale([parts.model.cam_fovy], parts.cameras(options["cameras"], "field_of_view"), options["scale"])


def _initial_joints(data: mujoco.MjData, parts: SceneParts, options: Options) -> Recipe:
    return InitialJoints(data, parts.joints(options["joints"], "initial_joints"), options["shift"])


def _initial_objects(data: mujoco.MjData, parts: SceneParts, options: Options) -> Recipe:
    bodies = parts.free_bodies(options["bodies"], "initial_objects")
    return InitialObjects(data, bodies, options["position"], options["yaw"], options["together"])


def _gains(controller: Any, interval: Sequence[float]) -> Gains:
    nominal = {name: float(getattr(controller, name)) for name in GAINS if hasattr(controller, name)}
    if not nominal:
        raise SpecError("randomization controller_gains: this controller has no gains to vary")
    return Gains(controller, nominal, interval)


_CHANGES = {
    "mass": _mass,
    "friction": _friction,
    "joint_damping": _joint_damping,
    "light": _light,
    "colour": _colour,
    "geom_colour": _geom_colour,
    "texture": _texture,
    "camera_pose": _camera_pose,
    "field_of_view": _field_of_view,
}
_PLACEMENTS = {"initial_joints": _initial_joints, "initial_objects": _initial_objects}


def _options(entry: str, given: Any, known: Options) -> Options:
    """Options of an entry over its defaults, checked."""
    if not isinstance(given, Mapping):
        raise SpecError(f"randomization {entry}: expected a mapping with {', '.join(known)}; got {given!r}")
    if unknown := sorted(set(given) - set(known)):
        raise SpecError(f"randomization {entry}: no option {', '.join(unknown)}; there are: {', '.join(known)}")
    options = {**known, **given}
    if missing := [key for key, value in options.items() if value is None]:
        raise SpecError(f"randomization {entry}: {', '.join(missing)} has to be given")
    for key, value in options.items():
        if key == "scale":
            is_pair = isinstance(value, list | tuple) and len(value) == 2 and all(map(_is_number, value))
            if not is_pair or not 0 < value[0] <= value[1]:
                raise SpecError(f"randomization {entry}.scale: expected [low, high] above 0, got {value!r}")
        elif key in ("shift", "position", "rotation", "direction", "yaw") and not (_is_number(value) and value >= 0):
            raise SpecError(f"randomization {entry}.{key}: expected a number of at least 0, got {value!r}")
    return options


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
