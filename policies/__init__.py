"""Generative action policies: observation encoders, denoisers, processes, normalisers, the chunk runner.

Names are loaded on first use, so that what needs no torch (the chunk runner, the onnxruntime policy) starts without it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from robot_rl.policies.chain import Chain
    from robot_rl.policies.checkpoint import CheckpointError, load_policy, save_policy
    from robot_rl.policies.chunk_runner import ChunkRunner
    from robot_rl.policies.configuration import PolicyError
    from robot_rl.policies.export import export_policy
    from robot_rl.policies.onnx_policy import OnnxPolicy
    from robot_rl.policies.policy import Policy, build_policy
    from robot_rl.policies.prefix import Prefix

_HOME = {
    "Chain": "chain",
    "CheckpointError": "checkpoint",
    "ChunkRunner": "chunk_runner",
    "OnnxPolicy": "onnx_policy",
    "Policy": "policy",
    "PolicyError": "configuration",
    "Prefix": "prefix",
    "build_policy": "policy",
    "export_policy": "export",
    "load_policy": "checkpoint",
    "save_policy": "checkpoint",
}

__all__ = [
    "Chain",
    "CheckpointError",
    "ChunkRunner",
    "OnnxPolicy",
    "Policy",
    "PolicyError",
    "Prefix",
    "build_policy",
    "export_policy",
    "load_policy",
    "save_policy",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
