"""An actor's own store, and what of it the learner has not acknowledged yet."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Any

from robot_rl.datasets import Contract, EpisodeStore
from robot_rl.rl.apart.messages import MessageError, Recorded
from robot_rl.rl.apart.reception import packed


class Outbox:
    """Hands out the episodes of a store in order, the same one until it is acknowledged. For one thread.

    Args:
        path: of the store, which another thread may be recording to.
    """

    def __init__(self, path: Path) -> None:
        self._store = EpisodeStore.open(path)
        self.acknowledged = 0

    @property
    def actor(self) -> str:
        """Identity of the actor: of its store."""
        return str(self._store.provenance["actor"])

    @property
    def waiting(self) -> int:
        """Committed episodes that are not acknowledged."""
        self._store.refresh()
        return len(self._store) - self.acknowledged

    def next(self, version: int) -> Recorded | None:
        """The first episode that is not acknowledged, None without any."""
        return packed(self._store[self.acknowledged], version) if self.waiting else None

    def acknowledge(self, received: int) -> None:
        """The learner holds the first `received` episodes.

        Raises:
            MessageError: it holds more than there are.
        """
        self._store.refresh()
        if received > len(self._store):
            raise MessageError(
                f"{self._store.path} holds {len(self._store)} episodes, the learner {received} of them: some were "
                "taken away here. Put them back, or move the store aside, which begins a new actor"
            )
        self.acknowledged = received


def open_store(folder: Path, run: str, contract: Contract, environment: dict[str, Any]) -> Path:
    """The actor's store for a training, made where there is none; its identity is drawn with it.

    Cameras are kept without loss, so that the learner's store encodes what was seen.
    """
    path = folder / f"{run}.zarr"
    if not path.exists():
        encoding = dict.fromkeys(contract.cameras, "lz4")
        about = {"actor": secrets.token_hex(8), "run": run, "environment": environment}
        EpisodeStore.create(path, contract, about, encoding=encoding)
    return path
