"""What can go wrong with an episode store; every error says what was expected, what came and what to do."""

from __future__ import annotations

from collections.abc import Iterable


class StoreError(RuntimeError):
    """Anything a store refuses or cannot do. What was committed is never touched by it."""


class NotAStore(StoreError):  # noqa: N818
    """The path holds no episode store."""


class StoreVersionError(StoreError):
    """The store was written in a version of the format that this package does not read."""


class StoreLocked(StoreError):  # noqa: N818
    """Another writer has the store open; `pid` names it (None when it could not be read)."""

    def __init__(self, message: str, pid: int | None) -> None:
        super().__init__(message)
        self.pid = pid


class StoreDamaged(StoreError):  # noqa: N818
    """Committed data are missing or unreadable; `robot-rl data check --repair` says which and restores what it can."""


class StoreWriteError(StoreError):
    """The operating system refused a write: full disk, read-only folder, broken drive."""


class StepError(StoreError, ValueError):
    """A step does not fit the contract. `problems` holds one line for each."""

    def __init__(self, title: str, problems: Iterable[str], advice: str = "") -> None:
        self.problems = tuple(problems)
        lines = [title, *(f"  - {problem}" for problem in self.problems)]
        super().__init__("\n".join([*lines, advice] if advice else lines))
