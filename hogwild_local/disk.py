"""Files that are there, and whole, also after the machine went down; and folders of this user."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path


def cache_folder() -> Path:
    """Where programs of this user keep what can be made again."""
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or str(Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = str(Path.home() / "Library" / "Caches")
    else:
        base = str(Path.home() / ".cache")
    return Path(os.environ.get("XDG_CACHE_HOME") or base) / "hogwild-local"


def state_folder() -> Path:
    """Where programs of this user keep what he did, such as lines typed."""
    if sys.platform in ("win32", "darwin"):
        base = os.environ.get("LOCALAPPDATA") or str(Path.home() / "Library" / "Application Support")
    else:
        base = str(Path.home() / ".local" / "state")
    return Path(os.environ.get("XDG_STATE_HOME") or base) / "hogwild-local"


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
