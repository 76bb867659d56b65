"""Messages out of a rosbag2 SQLite file that is damaged: all those on pages that are whole, in order of recording."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

BEYOND = 10_000
"""So many messages in a row that cannot be read are the end of a file whose length is not known."""

Found = tuple[str, str, int, bytes]
"""Topic, type, time of reception [ns] and CDR."""


def salvage(path: Path, lost: list[str]) -> Iterator[Found]:
    """Read what can be read.

    Args:
        lost: gets a line where messages are lost, before the next one comes.

    Raises:
        sqlite3.DatabaseError: not even the topics can be read.
    """
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as file:
        file.execute("PRAGMA writable_schema=ON")  # or SQLite opens no file that is shorter than its header says
        topics = {number: (name, kind) for number, name, kind in file.execute("SELECT id, name, type FROM topics")}
        last = _last(file)
        number, missed, read = 0, 0, 0
        while number < last if last else missed < BEYOND:
            row = _next(file, number)
            if row is None and last:
                return
            if row is None or isinstance(row, sqlite3.DatabaseError):
                # The page of the next message is damaged: look behind it.
                missed += 1
                number += 1
                continue
            if row[0] > read + 1:
                lost.append(f"messages {read + 1} to {row[0] - 1} of {path.name} are damaged")
            missed, number = 0, row[0]
            read = number
            yield (*topics[row[1]], row[2], row[3])
        if missed:
            lost.append(f"the end of {path.name} is damaged")


def _next(file: sqlite3.Connection, number: int) -> tuple[int, int, int, bytes] | sqlite3.DatabaseError | None:
    """The message behind this number, or what is wrong with it; None when there is none."""
    query = "SELECT id, topic_id, timestamp, data FROM messages WHERE id > ? ORDER BY id LIMIT 1"
    try:
        found: tuple[int, int, int, bytes] | None = file.execute(query, [number]).fetchone()
    except sqlite3.DatabaseError as error:
        return error
    return found


def _last(file: sqlite3.Connection) -> int:
    """Number of the last message; 0 when it cannot be read."""
    try:
        return int(file.execute("SELECT max(id) FROM messages").fetchone()[0] or 0)
    except sqlite3.DatabaseError:
        return 0
