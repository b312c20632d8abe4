"""Who holds a block of a cache: it is to be freed when nobody does any more."""

from __future__ import annotations

import weakref
from collections import deque


class Held:
    """A block of the engine, by its id. All handles of it have the same object, and give it up when they are freed."""

    __slots__ = ("__weakref__", "id")

    def __init__(self, block: int) -> None:
        self.id = block


class _Watch(weakref.ref[Held]):
    """Knows the id of what it watched when that is gone."""

    __slots__ = ("id",)
    id: int


class Holders:
    """Notes which blocks nobody holds any more, at any point of any thread, also inside a garbage collection: all that
    runs there is the append of a deque, which neither waits nor can be interrupted."""

    def __init__(self) -> None:
        self._watches: dict[int, _Watch] = {}
        self._dropped: deque[weakref.ref[Held]] = deque()

    def hold(self, block: int) -> Held:
        held = Held(block)
        watch = self._watches[block] = _Watch(held, self._dropped.append)
        watch.id = block
        return held

    def dropped(self) -> list[int]:
        """Blocks that nobody holds and that were not forgotten."""
        return [watch.id for watch in list(self._dropped) if isinstance(watch, _Watch)]

    def forget(self, block: int) -> None:
        """A block that was freed. May be called twice."""
        watch = self._watches.pop(block, None)
        if watch is not None:
            self._dropped.remove(watch)
