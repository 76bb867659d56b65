"""The secret that learner and actors share: from a file, from the environment, or made by the learner."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from robot_rl.rl.on_policy import FinetuneError

VARIABLE = "ROBOT_RL_SECRET"
FILE = "actors.secret"
"""In the run folder."""
SHORTEST = 16
"""Characters of a secret that a person chooses."""


def find(file: str | Path | None) -> bytes | None:
    """The secret in a file, else in the environment, else None.

    Raises:
        FinetuneError: the file cannot be read, or the secret is too short to withstand guessing.
    """
    if file is None:
        text, where = os.environ.get(VARIABLE), VARIABLE
        if text is None:
            return None
    else:
        where = str(file)
        try:
            text = Path(file).expanduser().read_text()
        except (OSError, UnicodeDecodeError) as error:
            raise FinetuneError(f"secret: {error}") from error
    text = text.strip()
    if len(text) < SHORTEST:
        raise FinetuneError(f"{where}: expected a secret of {SHORTEST} or more characters, got {len(text)}")
    return text.encode()


def find_or_make(file: str | Path | None, folder: Path) -> bytes:
    """The same; without any, one that lies in the run folder, made there and readable by its owner alone."""
    found = find(file)
    if found is not None:
        return found
    path = folder / FILE
    if not path.exists():
        beside = folder / f".{FILE}.{os.getpid()}"
        with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as stream:
            stream.write(secrets.token_urlsafe(32) + "\n")
        beside.replace(path)
    made = find(path)
    assert made is not None
    return made
