"""Record the workload of the window benchmark with robosuite: 50 episodes of 200 steps, two cameras of 84×84.

    python tests/benchmarks/peers/robosuite_frames.py FOLDER 50 200

Everything is written as plain `.npy` files, so that each loader of the comparison starts from the same bytes.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import numpy as np

CAMERAS = ("agentview", "robot0_eye_in_hand")
SIZE = 84


def record(folder: Path, episodes: int, steps: int, seed: int = 0) -> None:
    """Write `<camera>.npy` [E, T + 1, 84, 84, 3], `joint_position.npy`, `gripper_opening.npy`, `cube_pose.npy` and
    `action.npy` [E, T, 7] of Lift with a Panda under smooth random actions; about ten minutes of software rendering."""
    os.environ.setdefault("MUJOCO_GL", "egl")
    import mujoco
    import robosuite
    from tqdm import tqdm

    robosuite.macros.CONSOLE_LOGGING_LEVEL = None
    env = robosuite.make(
        "Lift", robots="Panda", has_renderer=False, has_offscreen_renderer=True, use_camera_obs=False,
        control_freq=20, horizon=steps, hard_reset=False, ignore_done=True, seed=seed,
    )  # fmt: skip
    generator = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    shapes = {"joint_position": (7,), "gripper_opening": (1,), "cube_pose": (7,)}
    values = {name: np.empty((episodes, steps + 1, *shape), np.float32) for name, shape in shapes.items()}
    actions = np.empty((episodes, steps, 7), np.float32)
    frames = {
        camera: np.lib.format.open_memmap(
            folder / f"{camera}.npy", "w+", dtype=np.uint8, shape=(episodes, steps + 1, SIZE, SIZE, 3)
        )
        for camera in CAMERAS
    }
    for episode in tqdm(range(episodes), desc="rendering with robosuite", unit="episode"):
        observation = env.reset()
        # Reflections cost half of the rendering time and change the size of an encoded frame by less than one percent.
        env.sim._render_context_offscreen.scn.flags[mujoco.mjtRndFlag.mjRND_REFLECTION] = 0
        action = np.zeros(7)
        for step in range(steps + 1):
            for camera in CAMERAS:
                frames[camera][episode, step] = env.sim.render(camera_name=camera, width=SIZE, height=SIZE)[::-1]
            values["joint_position"][episode, step] = env.robots[0]._joint_positions
            values["gripper_opening"][episode, step] = np.abs(observation["robot0_gripper_qpos"]).sum()
            values["cube_pose"][episode, step] = np.concatenate([observation["cube_pos"], observation["cube_quat"]])
            if step < steps:
                action = np.clip(0.9 * action + 0.3 * generator.normal(size=7), -1, 1)
                actions[episode, step] = action
                observation, _, _, _ = env.step(action)
    for name, array in values.items():
        np.save(folder / f"{name}.npy", array)
    np.save(folder / "action.npy", actions)
    (folder / "workload.json").write_text(json.dumps({"episodes": episodes, "steps": steps, "seed": seed}))


if __name__ == "__main__":
    record(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
