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

Messages = list[dict[str, Any]]


@dataclass(slots=True)
class ChatHead:
    """What a list shows of a conversation. owner: of the key that it was begun with, "" without keys."""

    id: str
    owner: str = ""
    title: str = ""
    created: int = field(default_factory=lambda: int(time()))
    updated: int = field(default_factory=lambda: int(time()))
    parent: str | None = None
    """The conversation that it was copied from."""
    options: dict[str, Any] = field(default_factory=dict)
    n_messages: int = 0


class ChatFiles:
    """folder: is made with the first file; None: nothing is kept. Damaged files are left alone."""

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder

    def heads(self) -> Iterator[ChatHead]:
        for path in sorted(self.folder.glob("chat-*.json")) if self.folder else ():
            try:
                head, _ = self._read(path)
            except (OSError, ValueError, TypeError):
                continue
            yield head

    def messages(self, name: str) -> Messages:
        """Of one conversation. Raises OSError, ValueError, TypeError."""
        assert self.folder is not None
        return self._read(self.folder / f"{name}.json")[1]

    def save(self, head: ChatHead, messages: Messages) -> None:
        if self.folder is None:
            return
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        fields = asdict(head)
        del fields["n_messages"]  # it is counted
        write_whole(self.folder / f"{head.id}.json", json.dumps({**fields, "messages": messages}, indent=1))

    def delete(self, name: str) -> None:
        if self.folder is not None:
            (self.folder / f"{name}.json").unlink(missing_ok=True)

    def _read(self, path: Path) -> tuple[ChatHead, Messages]:
        fields = json.loads(path.read_text(encoding="utf-8"))
        messages = fields.pop("messages", [])
        head = ChatHead(**fields, n_messages=len(messages))
        if not (NAME.fullmatch(head.id) and path.stem == head.id and isinstance(messages, list)):
            raise ValueError(f"{path} is no conversation's file")
        return head, messages
