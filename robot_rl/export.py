"""`robot-rl export`: a trained policy as ONNX, which onnxruntime runs without torch.

The folder holds the encoder and the denoising steps as graphs, and beside them the policy's contract and where it
came from. `robot-rl evaluate policy=<folder>` measures it like any other.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path


def main(arguments: list[str]) -> int:
    """Export one policy. Returns the exit status."""
    parser = argparse.ArgumentParser(prog="robot-rl export", description=__doc__.splitlines()[0])
    parser.add_argument("policy", type=_folder, help="run folder of `robot-rl train`, or checkpoint folder")
    parser.add_argument("output", type=_folder, nargs="?", help="folder to write; by default <policy>/onnx")
    options = parser.parse_args(arguments)

    from robot_rl.atomic_folder import replace_folder
    from robot_rl.cli import override
    from robot_rl.policies import load_policy
    from robot_rl.policies.checkpoint import PROVENANCE, checkpoint_folder
    from robot_rl.policies.export import export_policy
    from robot_rl.policies.onnx_policy import FILES

    policy, source = load_policy(options.policy), checkpoint_folder(options.policy)
    output = options.output or options.policy / "onnx"
    beside = (PROVENANCE, "observations.json")
    if output.exists() and (other := {path.name for path in output.iterdir()} - {*FILES, *beside}):
        raise ValueError(f"{output} holds {', '.join(sorted(other))}, no exported policy; choose another folder")

    def write(folder: Path) -> None:
        export_policy(policy, folder)
        for name in beside:
            if (source / name).is_file():
                shutil.copy(source / name, folder)

    output.parent.mkdir(parents=True, exist_ok=True)
    replace_folder(output, write)
    size = sum(path.stat().st_size for path in output.iterdir())
    print(f"{output}: {policy.contract.name}, {size / 1e6:.1f} MB")
    print(f"Evaluate it: robot-rl evaluate {override('policy', str(output))}")
    return 0


def _folder(text: str) -> Path:
    key, equals, path = text.partition("=")
    if equals and key in ("policy", "output"):
        raise argparse.ArgumentTypeError(f"{text}: here the folder stands alone: {path or 'runs/demo'}")
    return Path(text)
