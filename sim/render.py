"""Camera pictures of a MuJoCo model, offscreen, at two qualities.

`full` is robosuite's picture: four samples a pixel, reflections, shadows. `fast` is the same scene with one sample a
pixel and without reflections and shadows, and leaves out every geom whose bounding box lies outside the camera's view,
which changes no pixel. Software OpenGL spends its time on vertices, and a wrist camera sees few of them.

All renderers of a process share one OpenGL context, and those of equal meshes and textures also their copies on the
graphics side (0.7 s and some 100 MB for a robosuite scene).
"""

from __future__ import annotations

import hashlib
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal, get_args

import mujoco
import numpy as np

from robot_rl.sim.gl_context import RenderError, backend, current_context

__all__ = ["Quality", "RenderError", "Renderer"]

Quality = Literal["fast", "full"]

_MAX_GEOMS = 10_000
_HIDDEN_GROUP = 5
_CORNERS = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)], np.float64)
_UPLOADED = (
    "mesh_vert", "mesh_normal", "mesh_texcoord", "mesh_face", "mesh_facenormal", "mesh_facetexcoord", "mesh_vertadr",
    "mesh_faceadr", "mesh_graph", "hfield_data", "hfield_size", "tex_data", "tex_type", "tex_height", "tex_width",
    "tex_nchannel", "skin_vert", "skin_face",
)  # fmt: skip


class Renderer:
    """Renders the cameras of one model.

    Args:
        model: its poses come with each call, its appearance (colours, lights, camera poses, fields of view) is read
            anew each time; changed textures have to be announced by `upload_texture`.
        quality: `fast` or `full`.
        geom_groups: which geom groups are seen; in robosuite's models group 0 holds collision shapes, 1 what is seen.

    Raises:
        RenderError: where this machine has no OpenGL that needs no display.
    """

    def __init__(self, model: mujoco.MjModel, quality: Quality = "fast", geom_groups: Sequence[int] = (1, 2)) -> None:
        if quality not in get_args(Quality):
            raise ValueError(f"render quality: expected one of {', '.join(get_args(Quality))}, got {quality!r}")
        self.backend = backend()
        self.quality: Quality = quality
        self._model = model
        self._samples = 0 if quality == "fast" else int(model.vis.quality.offsamples)
        self._uploads: _Uploads | None = None
        self._textures_differ = False
        self._scene = mujoco.MjvScene(model, _MAX_GEOMS)
        if quality == "fast":
            for flag in (mujoco.mjtRndFlag.mjRND_REFLECTION, mujoco.mjtRndFlag.mjRND_SHADOW):
                self._scene.flags[flag] = False
        self._option = mujoco.MjvOption()
        self._option.geomgroup[:] = [group in geom_groups for group in range(len(self._option.geomgroup))]
        self._option.geomgroup[_HIDDEN_GROUP] = False
        self._perturbation = mujoco.MjvPerturb()
        self._camera = mujoco.MjvCamera()
        self._camera.type = mujoco.mjtCamera.mjCAMERA_FIXED
        # A plane has no extent of its own; a height field is drawn by its own rules.
        types = model.geom_type
        self._bounded = (types != mujoco.mjtGeom.mjGEOM_PLANE) & (types != mujoco.mjtGeom.mjGEOM_HFIELD)
        self._corners = model.geom_aabb[:, None, :3] + _CORNERS * model.geom_aabb[:, None, 3:]

    def render(self, data: mujoco.MjData, camera: str | int, out: np.ndarray) -> np.ndarray:
        """Fill `out`, uint8 [height, width, 3], with the camera's picture: RGB, upright. Returns it.

        `data` needs up-to-date poses (`mj_forward`, or `mj_kinematics` and `mj_camlight`).
        """
        _expect(out, np.uint8, 3)
        with self._drawn(data, camera, out) as (rectangle, context):
            flipped = np.empty(out.shape, np.uint8)
            mujoco.mjr_readPixels(flipped, None, rectangle, context)
            out[:] = flipped[::-1]
        return out

    def depth(self, data: mujoco.MjData, camera: str | int, out: np.ndarray) -> np.ndarray:
        """Fill `out`, uint16 [height, width, 1], with distances along the viewing axis in millimetres. Returns it.

        Zero stands for no measurement: nothing was hit, or beyond 65.535 m.
        """
        _expect(out, np.uint16, 1)
        with self._drawn(data, camera, out) as (rectangle, context):
            buffer = np.empty(out.shape[:2], np.float32)
            mujoco.mjr_readPixels(None, buffer, rectangle, context)
        near, far = (getattr(self._model.vis.map, plane) * self._model.stat.extent for plane in ("znear", "zfar"))
        scaled = buffer[::-1, :, None].astype(np.float64)
        millimetres = np.rint(1000 * near / (1 - scaled * (1 - near / far)))
        out[:] = np.where((scaled < 1) & (millimetres <= 65535), millimetres, 0)
        return out

    def geom_ids(self, data: mujoco.MjData, camera: str | int, out: np.ndarray) -> np.ndarray:
        """Fill `out`, int32 [height, width, 1], with the id of the geom seen at each pixel, -1 for none. Returns it."""
        _expect(out, np.int32, 1)
        flags = self._scene.flags
        flags[mujoco.mjtRndFlag.mjRND_SEGMENT] = flags[mujoco.mjtRndFlag.mjRND_IDCOLOR] = True
        try:
            with self._drawn(data, camera, out) as (rectangle, context):
                colour = np.empty((*out.shape[:2], 3), np.uint8)
                mujoco.mjr_readPixels(colour, None, rectangle, context)
        finally:
            flags[mujoco.mjtRndFlag.mjRND_SEGMENT] = flags[mujoco.mjtRndFlag.mjRND_IDCOLOR] = False
        ids = np.full(self._scene.ngeom + 1, -1, np.int32)
        for geom in self._scene.geoms[: self._scene.ngeom]:
            if geom.objtype == mujoco.mjtObj.mjOBJ_GEOM:
                ids[geom.segid + 1] = geom.objid
        out[..., 0] = ids[(colour[::-1].astype(np.int32) * (1, 1 << 8, 1 << 16)).sum(-1)]
        return out

    def upload_texture(self, texture: int) -> None:
        """Show the changed `model.tex_data` of a texture from now on; costs some 100 µs for each 100 000 texels."""
        if self._uploads is None or not self._textures_differ:
            # The uploads made so far may be another renderer's as well: get some of its own, with the present textures.
            self._textures_differ, self._uploads = True, None
            return
        with current_context():
            mujoco.mjr_uploadTexture(self._model, self._uploads.context, texture)

    def close(self) -> None:
        """Free the graphics memory unless another renderer uses it; rendering again takes it anew."""
        self._uploads = None

    def __enter__(self) -> Renderer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextmanager
    def _drawn(
        self, data: mujoco.MjData, camera: str | int, out: np.ndarray
    ) -> Iterator[tuple[mujoco.MjrRect, mujoco.MjrContext]]:
        index = self._camera_index(camera)
        height, width = out.shape[:2]
        with current_context():
            if self._uploads is None:
                self._uploads = _uploads(self._model, self._samples, private=self._textures_differ)
            context = self._uploads.context
            if context.offWidth < width or context.offHeight < height:
                mujoco.mjr_resizeOffscreen(max(width, context.offWidth), max(height, context.offHeight), context)
            mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, context)
            rectangle = mujoco.MjrRect(0, 0, width, height)
            self._update_scene(data, index, width / height)
            mujoco.mjr_render(rectangle, self._scene, context)
            yield rectangle, context

    def _update_scene(self, data: mujoco.MjData, camera: int, aspect: float) -> None:
        model = self._model
        self._camera.fixedcamid = camera
        arguments = (
            model, data, self._option, self._perturbation, self._camera, mujoco.mjtCatBit.mjCAT_ALL, self._scene,
        )  # fmt: skip
        outside = self._outside(data, camera, aspect) if self.quality == "fast" else None
        if outside is None:
            mujoco.mjv_updateScene(*arguments)
            return
        groups = model.geom_group.copy()
        try:
            model.geom_group[outside] = _HIDDEN_GROUP
            mujoco.mjv_updateScene(*arguments)
        finally:
            model.geom_group[:] = groups

    def _outside(self, data: mujoco.MjData, camera: int, aspect: float) -> np.ndarray | None:
        """Which geoms, bool [ngeom], have all corners of their bounding box beyond one plane of the view."""
        model = self._model
        if model.cam_sensorsize[camera].any() or _is_orthographic(model, camera):
            return None
        view = data.cam_xmat[camera].reshape(3, 3)
        rotation = view.T @ data.geom_xmat.reshape(-1, 3, 3)
        centre = (data.geom_xpos - data.cam_xpos[camera]) @ view
        x, y, z = np.moveaxis(self._corners @ rotation.transpose(0, 2, 1) + centre[:, None], -1, 0)
        half_height = -z * np.tan(np.radians(model.cam_fovy[camera]) / 2)
        half_width = half_height * aspect
        beyond = np.stack([x > half_width, x < -half_width, y > half_height, y < -half_height, z > 0])
        outside: np.ndarray = beyond.all(-1).any(0) & self._bounded
        return outside

    def _camera_index(self, camera: str | int) -> int:
        model = self._model
        index = camera if isinstance(camera, int) else mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_CAMERA, camera)
        if not 0 <= index < model.ncam:
            names = ", ".join(model.camera(other).name for other in range(model.ncam))
            raise ValueError(f"camera {camera!r}: no such camera; this model has {names or 'none'}")
        return index


class _Uploads:
    """Meshes and textures on the graphics side."""

    def __init__(self, model: mujoco.MjModel, samples: int) -> None:
        quality, size = model.vis.quality, model.vis.global_
        kept = quality.offsamples, size.offwidth, size.offheight
        try:
            quality.offsamples, size.offwidth, size.offheight = samples, 64, 64
            self.context = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_50)
        finally:
            quality.offsamples, size.offwidth, size.offheight = kept
        self._finalizer = weakref.finalize(self, _free, self.context)
        self._finalizer.atexit = False


def _free(context: Any) -> None:
    with current_context():
        context.free()


_shared: weakref.WeakValueDictionary[tuple[str, int], _Uploads] = weakref.WeakValueDictionary()


def _uploads(model: mujoco.MjModel, samples: int, private: bool) -> _Uploads:
    if private:
        return _Uploads(model, samples)
    digest = hashlib.blake2b(digest_size=16)
    for name in _UPLOADED:
        digest.update(np.ascontiguousarray(getattr(model, name)).data)
    quality = model.vis.quality
    digest.update(str((quality.shadowsize, quality.numslices, quality.numstacks, quality.numquads)).encode())
    key = digest.hexdigest(), samples
    uploads = _shared.get(key)
    if uploads is None:
        _shared[key] = uploads = _Uploads(model, samples)
    return uploads


def _is_orthographic(model: mujoco.MjModel, camera: int) -> bool:
    # MuJoCo 3.6 renamed the field.
    field = getattr(model, "cam_projection", None)
    return bool((model.cam_orthographic if field is None else field)[camera])


def _expect(out: np.ndarray, dtype: type, channels: int) -> None:
    if out.dtype != dtype or out.ndim != 3 or out.shape[2] != channels or not out.size:
        raise ValueError(
            f"expected an array to fill of dtype {np.dtype(dtype)} and shape [height, width, {channels}], "
            f"got {out.dtype} {list(out.shape)}"
        )
