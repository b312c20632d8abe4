"""A run's events for a coroutine: a thread iterates the run, and its event loop waits for nothing."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import deque
from collections.abc import AsyncIterator, Iterator
from typing import Protocol

from .. import events as ev

MOST_AHEAD = 256
"""Events that the thread makes before anybody asks for them: a few passes, so that nobody waits for the event loop."""


class Leavable(Protocol):
    """A Run, of which this module knows no more."""

    def __iter__(self) -> Iterator[ev.Event]: ...
    def leave(self) -> None: ...


async def events_of(run: Leavable) -> AsyncIterator[ev.Event]:
    """All events of a run. Whatever ends the iteration ends the run, and what it holds is free then."""
    producer = _Producer(run, asyncio.get_running_loop())
    try:
        while (batch := await producer.batch()) is not None:
            for event in batch:
                yield event
    finally:
        await producer.end()


class _Producer:
    """The thread, and what it has made."""

    def __init__(self, run: Leavable, loop: asyncio.AbstractEventLoop) -> None:
        self._run, self._loop = run, loop
        self._changed = threading.Condition()
        self._events: deque[ev.Event] = deque()
        self._error: BaseException | None = None
        self._left = self._done = False
        self._news = asyncio.Event()
        threading.Thread(target=self._produce, daemon=True, name="hogwild run").start()

    async def batch(self) -> list[ev.Event] | None:
        """What has happened since the last call, at least one event; None: that was all. Raises what the run raised."""
        while True:
            await self._news.wait()
            with self._changed:
                self._news.clear()
                batch, done = list(self._events), self._done
                self._events.clear()
                self._changed.notify()
            if done:
                self._news.set()  # it stays so
            if batch:
                return batch
            if done and self._error is not None:
                raise self._error
            if done:
                return None

    async def end(self) -> None:
        """Ends the run, and waits until nothing of it is held any more."""
        with self._changed:
            self._left = True
            self._events.clear()
            self._changed.notify()
        self._run.leave()
        while not self._done:
            await self._news.wait()
            if not self._done:
                self._news.clear()

    # -- the thread --

    def _produce(self) -> None:
        try:
            for event in self._run:
                if not self._put(event):
                    break  # which closes the run
        except BaseException as error:
            self._error = error
        self._done = True
        self._tell()

    def _put(self, event: ev.Event) -> bool:
        with self._changed:
            while len(self._events) >= MOST_AHEAD and not self._left:
                self._changed.wait()
            self._events.append(event)
            is_first = len(self._events) == 1
        if is_first:
            self._tell()
        return not self._left

    def _tell(self) -> None:
        with contextlib.suppress(RuntimeError):  # the event loop has ended
            self._loop.call_soon_threadsafe(self._news.set)
