"""Conversations on disk: one JSON file each, whole or not there."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from time import time
from typing import Any

from ..disk import write_whole

NAME = re.compile(r"chat-[0-9a-f]{24}")


@dataclass(slots=True)
class SavedChat:
    """What is kept of a conversation. owner: of the key that it was begun with, "" without keys."""

    id: str
    owner: str = ""
    title: str = ""
    created: int = field(default_factory=lambda: int(time()))
    updated: int = field(default_factory=lambda: int(time()))
    parent: str | None = None
    """The conversation that it was copied from."""
    options: dict[str, Any] = field(default_factory=dict)
    messages: list[dict[str, Any]] = field(default_factory=list)


class ChatFiles:
    """folder: is made with the first file; None: nothing is kept. Damaged files are left alone."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder

    def all(self) -> Iterator[SavedChat]:
        for path in sorted(self._folder.glob("chat-*.json")) if self._folder else ():
            try:
                fields = json.loads(path.read_text(encoding="utf-8"))
                chat = SavedChat(**fields)
                is_ours = NAME.fullmatch(chat.id) and path.stem == chat.id and isinstance(chat.messages, list)
            except (OSError, ValueError, TypeError):
                continue
            if is_ours:
                yield chat

    def save(self, chat: SavedChat) -> None:
        if self._folder is None:
            return
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_whole(self._folder / f"{chat.id}.json", json.dumps(asdict(chat), indent=1))

    def delete(self, name: str) -> None:
        if self._folder is not None:
            (self._folder / f"{name}.json").unlink(missing_ok=True)
