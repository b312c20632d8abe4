"""Files that are there, and whole, also after the machine went down; and folders of this user."""

from __future__ import annotations

import contextlib
import os
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from platformdirs import PlatformDirs


def cache_folder() -> Path:
    """Where programs of this user keep what can be made again."""
    return _folders().user_cache_path


def state_folder() -> Path:
    """Where programs of this user keep what he did, such as lines typed."""
    return _folders().user_state_path


def data_folder() -> Path:
    """Where programs of this user keep what is his, such as conversations."""
    return _folders().user_data_path


@cache
def _folders() -> PlatformDirs:
    from platformdirs import PlatformDirs

    return PlatformDirs("hogwild-local", appauthor=False)


def write_whole(file: Path, text: str) -> None:
    """Writes a file, whole or not at all. Raises OSError, and then the file before stands."""
    part = file.with_name(f"{file.name}.part")
    with part.open("w", encoding="utf-8") as out:
        out.write(text)
        out.flush()
        os.fsync(out.fileno())
    part.replace(file)
    sync_folder(file.parent)


def sync_folder(folder: Path) -> None:
    """Puts the names of its files on disk. Not all systems let a folder be opened for that."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):
            os.fsync(handle)
    finally:
        os.close(handle)
