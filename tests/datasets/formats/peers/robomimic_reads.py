"""What robomimic's own loader makes of an HDF5 file, as arrays; runs in an environment that holds robomimic.

    python robomimic_reads.py DATASET.hdf5 FOUND.npz [KEY ...]

Every demonstration is read by SequenceDataset, with all keys of `obs` and `next_obs`, by each mask of the file.
KEY ... are the features to read; those of uint8 pictures are of the modality `rgb`.
"""

from __future__ import annotations

import json
import sys
import types

import h5py
import numpy as np
import torchvision_stub

torchvision_stub.use()
# robomimic 0.3 names an exception of mujoco_py, robosuite's simulator of old, and uses nothing else of it.
sys.modules.setdefault("mujoco_py", types.SimpleNamespace(builder=types.SimpleNamespace(MujocoException=Exception)))

import robomimic.utils.env_utils as env_utils  # noqa: E402
import robomimic.utils.file_utils as file_utils  # noqa: E402
import robomimic.utils.obs_utils as obs_utils  # noqa: E402
from robomimic.utils.dataset import SequenceDataset  # noqa: E402

STACK, SEQUENCE = 2, 10


def dataset(path: str, keys: tuple[str, ...], mask: str | None, frames: int, actions: int) -> SequenceDataset:
    return SequenceDataset(
        path, keys, ("actions", "rewards", "dones"), frame_stack=frames, seq_length=actions, pad_frame_stack=True,
        pad_seq_length=True, get_pad_mask=True, hdf5_cache_mode="low_dim", hdf5_normalize_obs=False,
        filter_by_attribute=mask, load_next_obs=True,
    )  # fmt: skip


def main() -> None:
    path, output, keys = sys.argv[1], sys.argv[2], tuple(sys.argv[3:])
    with h5py.File(path) as file:
        pictures = [key for key in keys if file[f"data/demo_0/obs/{key}"].ndim == 4]
        masks = list(file["mask"])
        whole = "model_file" in file["data/demo_0"].attrs
    spec = {"low_dim": [key for key in keys if key not in pictures], "rgb": pictures}
    obs_utils.initialize_obs_modality_mapping_from_dict(spec)
    shapes = file_utils.get_shape_metadata_from_dataset(path, all_obs_keys=list(keys), verbose=False)
    found: dict[str, np.ndarray] = {}
    single = dataset(path, keys, None, 1, 1)
    for name in single.demos:
        start, length = single._demo_id_to_start_indices[name], single._demo_id_to_demo_length[name]
        rows = [single[index] for index in range(start, start + length)]
        for part in ("actions", "rewards", "dones"):
            found[f"{name}/{part}"] = np.concatenate([row[part] for row in rows])
        for part in ("obs", "next_obs"):
            for key in keys:
                found[f"{name}/{part}/{key}"] = np.concatenate([row[part][key] for row in rows])
    stacked = dataset(path, keys, None, STACK, SEQUENCE)
    windows = [stacked[index] for index in range(len(stacked))]
    about = {
        "demos": list(single.demos),
        "masks": {mask: list(dataset(path, keys, mask, 1, 1).demos) for mask in masks},
        "shapes": {key: list(shape) for key, shape in shapes["all_shapes"].items()},
        "windows": len(windows),
        "padded": sum(int(not window["pad_mask"].all()) for window in windows),
    }
    if whole:
        meta = file_utils.get_env_metadata_from_dataset(path)
        env = env_utils.create_env_from_metadata(meta, render=False, render_offscreen=False, use_image_obs=False)
        about["environment"] = env.name
        with h5py.File(path) as file:
            demo = file["data/demo_0"]
            env.reset()
            env.reset_to({"states": demo["states"][0], "model": demo.attrs["model_file"]})
            observed = [env.reset_to({"states": state}) for state in demo["states"]]
        found["reset_to"] = np.array([found["robot0_joint_pos"] for found in observed])
    np.savez_compressed(output, **found)
    print(json.dumps(about))


if __name__ == "__main__":
    main()
