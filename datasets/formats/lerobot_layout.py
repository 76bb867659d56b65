"""How a LeRobotDataset v3.0 is laid out, and what of a store stands where in it.

| store | LeRobot |
|---|---|
| observation features of float32 | `observation.state`, one after the other, named `feature.element` |
| other low-dimensional features | `observation.<name>` |
| camera | `observation.images.<camera>` |
| action, reward | `action`, `next.reward` |
| task, or text where there is one | the task of the episode |

LeRobot keeps T observations and T actions. Reading repeats the last observation as the final one, and the journal says
so (`final_row`). What LeRobot has no place for is written to `meta/robot_rl/`, which its reader ignores: the contract,
facts and final observations; and as further columns: stamps, proposed actions, interventions, simulator states. Read
back, the store is the same, but for the losses of video.
"""

from __future__ import annotations

from robot_rl.datasets.contract import Contract, Feature

VERSION = "v3.0"
CHUNK_FILES, DATA_MB, VIDEO_MB = 1000, 100, 200
DATA_PATH = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
VIDEO_PATH = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
OURS = "meta/robot_rl"


def camera_key(name: str) -> str:
    """LeRobot's name of a camera."""
    return f"observation.images.{name}"


def joined(contract: Contract) -> list[Feature]:
    """The features that make up `observation.state`."""
    lowdim = [feature for feature in contract.observation.values() if not feature.is_frame]
    return [feature for feature in lowdim if feature.dtype == "float32" and feature.role == "policy"]
