"""Runs that go on when their client has gone, and that can be read for a while when they have ended."""

from __future__ import annotations

import asyncio

from ..options import ServerOptions
from .faults import Fault
from .live import LiveRun

MOST_KEPT = 256


class Kept:
    """By name. Of one loop."""

    def __init__(self, options: ServerOptions) -> None:
        self._seconds = options.resume
        self._live: dict[str, LiveRun] = {}

    def get(self, name: str) -> LiveRun | None:
        return self._live.get(name)

    def all(self) -> list[LiveRun]:
        return list(self._live.values())

    def check_room(self) -> None:
        """Raises Fault where all that are kept still go on; else forgets what has ended first, if need be."""
        while len(self._live) >= MOST_KEPT:
            done = next((name for name, live in self._live.items() if live.is_done), None)
            if done is None:
                raise Fault(429, "too many runs go on already", code="queue_full", retry_after=5)
            del self._live[done]

    def put(self, name: str, live: LiveRun) -> None:
        """In the place of another one of that name, which is cancelled."""
        if (before := self._live.pop(name, None)) is not None:
            before.cancel()
        live.stays = True
        self._live[name] = live
        loop = asyncio.get_running_loop()
        live.when_done(lambda _: loop.call_later(self._seconds, self._forget, name, live))

    async def stop(self, name: str) -> LiveRun | None:
        """Ends it, and forgets it."""
        if (live := self._live.pop(name, None)) is not None:
            live.cancel()
            await live.gone()
        return live

    def _forget(self, name: str, live: LiveRun) -> None:
        if self._live.get(name) is live:
            del self._live[name]
