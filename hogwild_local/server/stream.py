"""What a client is sent, kept so that it can be read from any place: by several, later, or more slowly."""

from __future__ import annotations

import asyncio
from collections import deque
from itertools import islice

MOST_AT_ONCE = 1 << 16
"""Bytes that are taken together, unless one message has more: a reader who falls behind is given no more to hold."""


class Lost(Exception):
    """What was to be read is kept no longer."""


class Stream:
    """Messages, numbered from 1, of which the newest most_bytes are kept. Whoever writes never waits for a reader: one
    that is slower than that is cut off. For one event loop."""

    def __init__(self, most_bytes: int) -> None:
        self._most = most_bytes
        self._messages: deque[bytes] = deque()
        self.n_kept = 0
        """Bytes of the messages that are kept."""
        self._bytes_dropped = 0
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
        return self._bytes_dropped + self.n_kept

    def put(self, message: bytes) -> None:
        self._messages.append(message)
        self.n_kept += len(message)
        while self.n_kept > self._most and len(self._messages) > 1:
            dropped = len(self._messages.popleft())
            self.n_kept -= dropped
            self._bytes_dropped += dropped
            self.n_dropped += 1
        self._news.set()

    def end(self) -> None:
        self._is_ended = True
        self._news.set()

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

    def behind(self, after: int) -> tuple[int, bytes]:
        """Messages behind number `after`, as many as are there and MOST_AT_ONCE allows, and the number of the last one:
        what was told together is sent together. Raises Lost."""
        if after < self.n_dropped:
            raise Lost
        messages: list[bytes] = []
        n = 0
        for message in islice(self._messages, after - self.n_dropped, None):
            if messages and n + len(message) > MOST_AT_ONCE:
                break
            messages.append(message)
            n += len(message)
        return after + len(messages), b"".join(messages)

    async def more(self, after: int) -> bool:
        """Waits for a message behind number `after`. False: the stream has ended without one."""
        while after >= self.n_messages and not self._is_ended:
            self._news.clear()  # all readers wake, and look for themselves
            await self._news.wait()
        return after < self.n_messages
