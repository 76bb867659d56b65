"""Where a result comes from: versions, commit and command line, kept with every store and checkpoint."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any


def provenance(packages: Iterable[str] = ("robot_rl", "torch", "numpy")) -> dict[str, Any]:
    """Plain JSON types: `versions`, `git_commit` (None for an installed wheel), `command`, `created`."""
    return {
        "versions": {"python": sys.version.split()[0], **{name: _version(name) for name in packages}},
        "git_commit": _git_commit(Path(__file__).parent),
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _git_commit(folder: Path) -> str | None:
    """The commit, with `-dirty` when the sources differ from it; None outside a checkout of this project."""
    command = ["git", "-C", str(folder)]
    try:
        # A wheel may lie inside a checkout of something else: only our own tracked file counts.
        tracked = subprocess.run([*command, "ls-files", "provenance.py"], capture_output=True, text=True, timeout=10)
        if not tracked.stdout.strip():
            return None
        described = subprocess.run(
            [*command, "describe", "--always", "--abbrev=40", "--exclude=*", "--dirty"],
            capture_output=True, text=True, timeout=10,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return None
    return described.stdout.strip() or None
