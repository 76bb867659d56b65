"""What is opened before it is used, and closed after, has a `with` block for both."""

from __future__ import annotations

from types import TracebackType
from typing import Self


class Opened:
    """Gives `open` and `close` their `with` block."""

    def open(self) -> None:
        """Begin."""

    def close(self) -> None:
        """End."""

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
