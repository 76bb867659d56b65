"""Replacing a folder in one piece, so that a kill at any instant leaves the old one or the new one."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path


def replace_folder(target: Path, write: Callable[[Path], None]) -> None:
    """Let `write` fill a new folder, bring it safely to disk, and put it in the place of `target`.

    Killed at any instant, either the old or the new folder is whole; `recover` tells which, and finishes.

    Raises:
        OSError: a file cannot be written, for example because the disk is full; the old folder is as it was.
    """
    new, old = _beside(target, "new"), _beside(target, "old")
    for leftover in (new, old):
        shutil.rmtree(leftover, ignore_errors=True)
    new.mkdir(parents=True)
    try:
        write(new)
        for path in (*new.rglob("*"), new):
            _sync(path)
    except Exception as error:
        shutil.rmtree(new, ignore_errors=True)
        # safetensors says in words only which error of the system it met.
        if not isinstance(error, OSError) and (number := re.search(r"\(os error (\d+)\)", str(error))):
            raise OSError(int(number[1]), os.strerror(int(number[1])), str(target)) from error
        raise
    if target.exists():
        target.rename(old)
    new.rename(target)
    _sync(target.parent)
    shutil.rmtree(old, ignore_errors=True)


def recover(target: Path) -> None:
    """Finish or undo what a kill left half done in `replace_folder`."""
    new, old = _beside(target, "new"), _beside(target, "old")
    if not target.exists() and old.exists():
        # The old one steps aside only once the new one is wholly on disk.
        (new if new.exists() else old).rename(target)
    for leftover in (new, old):
        shutil.rmtree(leftover, ignore_errors=True)


def _beside(target: Path, word: str) -> Path:
    return target.with_name(f".{target.name}.{word}")


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
