"""The episode format: contract, store, windows, statistics."""

from robot_rl.datasets.contract import Contract, ContractError, Feature, equal, satisfies
from robot_rl.datasets.errors import (
    NotAStore,
    StepError,
    StoreDamaged,
    StoreError,
    StoreLocked,
    StoreVersionError,
    StoreWriteError,
)
from robot_rl.datasets.statistics import Statistics
from robot_rl.datasets.store import Episode, EpisodeStore
from robot_rl.datasets.windows import Mixture, Windows

__all__ = [
    "Contract",
    "ContractError",
    "Episode",
    "EpisodeStore",
    "Feature",
    "Mixture",
    "NotAStore",
    "Statistics",
    "StepError",
    "StoreDamaged",
    "StoreError",
    "StoreLocked",
    "StoreVersionError",
    "StoreWriteError",
    "Windows",
    "equal",
    "satisfies",
]
