"""What a client is sent, kept so that it can be read from any place: by several, later, or more slowly."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator


class Lost(Exception):
    """What was to be read is kept no longer."""


class Stream:
    """Messages, numbered from 1, of which the newest most_bytes are kept. Whoever writes never waits for a reader: one
    that is slower than that is cut off. For one event loop."""

    def __init__(self, most_bytes: int) -> None:
        self._most = most_bytes
        self._messages: deque[bytes] = deque()
        self._n_bytes = self._bytes_dropped = 0
        self.n_dropped = 0
        """Messages that are kept no longer."""
        self._is_ended = False
        self._news = asyncio.Event()

    @property
    def is_ended(self) -> bool:
        return self._is_ended

    @property
    def n_messages(self) -> int:
        """Up to now."""
        return self.n_dropped + len(self._messages)

    @property
    def n_bytes(self) -> int:
        """Of all messages up to now, those that were dropped too."""
        return self._bytes_dropped + self._n_bytes

    def put(self, message: bytes) -> None:
        self._messages.append(message)
        self._n_bytes += len(message)
        while self._n_bytes > self._most and len(self._messages) > 1:
            dropped = len(self._messages.popleft())
            self._n_bytes -= dropped
            self._bytes_dropped += dropped
            self.n_dropped += 1
        self._tell()

    def end(self) -> None:
        self._is_ended = True
        self._tell()

    def after_bytes(self, n: int) -> tuple[int, int]:
        """How many whole messages are in the first n bytes, and how many bytes of the next one. Raises Lost where they
        end before what is kept, or behind it."""
        if not self._bytes_dropped <= n <= self.n_bytes:
            raise Lost
        at, number = self._bytes_dropped, self.n_dropped
        for message in self._messages:
            if at + len(message) > n:
                break
            at += len(message)
            number += 1
        return number, n - at

    async def read(self, after: int = 0) -> AsyncIterator[tuple[int, bytes]]:
        """Messages behind number `after`, until the stream ends. Raises Lost."""
        while True:
            news = self._news
            while after < self.n_messages:
                if after < self.n_dropped:
                    raise Lost
                message = self._messages[after - self.n_dropped]
                after += 1
                yield after, message
            if self._is_ended and after >= self.n_messages:
                return
            if news is self._news:
                await news.wait()

    def _tell(self) -> None:
        self._news.set()
        self._news = asyncio.Event()
