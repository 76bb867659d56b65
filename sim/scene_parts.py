"""Parts of a scene by name: bodies, geoms, joints, materials, textures, cameras, lights, chosen by patterns."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from fnmatch import fnmatchcase

import mujoco
import numpy as np

from robot_rl.sim.spec import SpecError

GROUPS = ("objects", "robots", "scene")
"""Words that stand for parts of the task's objects, of the robots with their mounts, and of everything else."""


class SceneParts:
    """Names and ids of a model's parts.

    Args:
        objects, robots: ids of bodies; every part of the kinematic trees that they stand in counts as theirs.
    """

    def __init__(self, model: mujoco.MjModel, objects: Iterable[int] = (), robots: Iterable[int] = ()) -> None:
        self.model = model
        self._group_of_body = np.full(model.nbody, "scene", object)
        for word, bodies in (("objects", objects), ("robots", robots)):
            roots = {int(model.body_rootid[body]) for body in bodies} - {0}
            self._group_of_body[[int(root) in roots for root in model.body_rootid]] = word

    def bodies(self, wanted: str | Sequence[str], where: str) -> dict[str, int]:
        """Bodies that have a mass."""
        heavy = np.flatnonzero(self.model.body_mass > 0)
        return self._chosen(where, wanted, heavy, self.model.body, lambda body: [body])

    def free_bodies(self, wanted: str | Sequence[str], where: str) -> dict[str, int]:
        """Bodies that move freely, as the address of their pose in qpos."""
        model = self.model
        free = model.jnt_bodyid[model.jnt_type == mujoco.mjtJoint.mjJNT_FREE]
        found = self._chosen(where, wanted, free, model.body, lambda body: [body])
        return {name: int(model.jnt_qposadr[model.body_jntadr[body]]) for name, body in found.items()}

    def geoms(self, wanted: str | Sequence[str], where: str) -> dict[str, int]:
        """Geoms that can touch something."""
        model = self.model
        touching = np.flatnonzero((model.geom_contype != 0) | (model.geom_conaffinity != 0))
        return self._chosen(where, wanted, touching, model.geom, lambda geom: [model.geom_bodyid[geom]])

    def joints(self, wanted: str | Sequence[str], where: str) -> dict[str, int]:
        """Hinge and slide joints."""
        model = self.model
        kinds = mujoco.mjtJoint.mjJNT_SLIDE, mujoco.mjtJoint.mjJNT_HINGE
        single = np.flatnonzero(np.isin(model.jnt_type, kinds))
        return self._chosen(where, wanted, single, model.joint, lambda joint: [model.jnt_bodyid[joint]])

    def materials(self, wanted: str | Sequence[str], where: str) -> dict[str, int]:
        """Materials; one belongs to a group when a geom of the group wears it."""
        return self._chosen(where, wanted, range(self.model.nmat), self.model.mat, self._wearers)

    def bare_geoms(self, wanted: str | Sequence[str], where: str) -> dict[str, int]:
        """Visible geoms that have a colour of their own instead of a material."""
        model = self.model
        bare = np.flatnonzero((model.geom_matid < 0) & (model.geom_rgba[:, 3] > 0) & (model.geom_group > 0))
        return self._chosen(where, wanted, bare, model.geom, lambda geom: [model.geom_bodyid[geom]])

    def textures(self, wanted: str | Sequence[str], where: str) -> dict[str, int]:
        """Textures; one belongs to a group when a material of the group shows it, the sky to the scene."""
        model = self.model

        def wearers(texture: int) -> list[int]:
            materials = np.flatnonzero((model.mat_texid == texture).any(-1))
            return [body for material in materials for body in self._wearers(int(material))] or [0]

        return self._chosen(where, wanted, range(model.ntex), model.tex, wearers)

    def cameras(self, wanted: str | Sequence[str], where: str) -> dict[str, int]:
        """Cameras; those carried by a robot are the robot's."""
        model = self.model
        return self._chosen(where, wanted, range(model.ncam), model.camera, lambda camera: [model.cam_bodyid[camera]])

    def lights(self, wanted: str | Sequence[str], where: str) -> dict[str, int]:
        """Lights."""
        model = self.model
        return self._chosen(where, wanted, range(model.nlight), model.light, lambda light: [model.light_bodyid[light]])

    def _wearers(self, material: int) -> list[int]:
        return [int(body) for body in self.model.geom_bodyid[self.model.geom_matid == material]]

    def _chosen(
        self,
        where: str,
        wanted: str | Sequence[str],
        ids: Iterable[int],
        view: Callable[[int], mujoco.MjModel],
        bodies: Callable[[int], Iterable[int]],
    ) -> dict[str, int]:
        named = {view(int(index)).name or f"#{int(index)}": int(index) for index in ids}
        patterns = [wanted] if isinstance(wanted, str) else list(wanted)
        if wrong := [pattern for pattern in patterns if not isinstance(pattern, str)]:
            raise SpecError(f"{where}: expected names, got {wrong}")
        chosen: dict[str, int] = {}
        for pattern in patterns:
            if pattern in GROUPS:
                chosen |= {
                    name: index
                    for name, index in named.items()
                    if any(self._group_of_body[body] == pattern for body in bodies(index))
                }
                continue
            matching = {name: index for name, index in named.items() if fnmatchcase(name, pattern)}
            if not matching and pattern != "*":
                raise SpecError(f"{where}: nothing is called {pattern!r}; there are: {_listed(named)}")
            chosen |= matching
        return dict(sorted(chosen.items(), key=lambda item: item[1]))


def _listed(names: Mapping[str, int]) -> str:
    return ", ".join([*GROUPS, *names])
