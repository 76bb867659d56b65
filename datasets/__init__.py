"""The episode format: contract, store, windows, statistics."""

from robot_rl.datasets.contract import Contract, ContractError, Feature, equal, satisfies

__all__ = ["Contract", "ContractError", "Feature", "equal", "satisfies"]
