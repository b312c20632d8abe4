"""Runs that go on when their client has gone, and that can be read for a while when they have ended."""

from __future__ import annotations

import asyncio
import weakref

from ..options import ServerOptions
from .faults import Fault
from .live import LiveRun

MOST_KEPT = 256
MOST_STREAMS = 16
"""Of what has ended, no more bytes are kept than so many streams may have."""


class Kept:
    """By name. Of one loop."""

    def __init__(self, options: ServerOptions) -> None:
        self._seconds, self._most_bytes = options.resume, MOST_STREAMS * (options.stream_mb << 20)
        self._live: dict[str, LiveRun] = {}

    def get(self, name: str) -> LiveRun | None:
        return self._live.get(name)

    def all(self) -> list[LiveRun]:
        return list(self._live.values())

    def check_room(self) -> None:
        """Raises Fault where all that are kept still go on; else forgets what has ended first, if need be."""
        done = {name: live.stream.n_kept for name, live in self._live.items() if live.is_done}
        while done and (len(self._live) >= MOST_KEPT or sum(done.values()) > self._most_bytes):
            first = next(iter(done))
            del self._live[first], done[first]
        if len(self._live) >= MOST_KEPT:
            raise Fault(429, "too many runs go on already", code="queue_full", retry_after=5)

    def put(self, name: str, live: LiveRun) -> None:
        """In the place of another one of that name, which is cancelled."""
        if (before := self._live.pop(name, None)) is not None:
            before.cancel()
        live.stays = True
        self._live[name] = live
        loop, weak = asyncio.get_running_loop(), weakref.ref(live)  # what is forgotten before is not kept by its timer
        live.when_done(lambda _: loop.call_later(self._seconds, self._forget, name, weak))

    async def stop(self, name: str) -> LiveRun | None:
        """Ends it, and forgets it."""
        if (live := self._live.pop(name, None)) is not None:
            live.cancel()
            await live.gone()
        return live

    def _forget(self, name: str, live: weakref.ref[LiveRun]) -> None:
        if name in self._live and self._live[name] is live():
            del self._live[name]
