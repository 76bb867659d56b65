"""The contract that a node is told to follow by its parameter `policy`."""

from __future__ import annotations

from pathlib import Path

from robot_rl.datasets import Contract, ContractError


def policy_contract(policy: str) -> Contract:
    """The contract of a policy, or of a file. Raises ContractError when there is none."""
    path = Path(policy)
    places = [path, path / "contract.json", path / "checkpoints" / "best" / "contract.json"]
    found = next((place for place in places if place.is_file()), None)
    if found is None:
        raise ContractError(f"parameter policy: no contract at {policy}:", [f"no file {place}" for place in places])
    return Contract.from_yaml(found)
