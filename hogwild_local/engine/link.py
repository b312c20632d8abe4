"""Requests to a child and its replies, through two ends of a pipe and a thread at each: a caller that Ctrl+C interrupts
leaves no half message, and a reply that nobody waits for any more is nobody else's."""

from __future__ import annotations

import contextlib
import queue
import subprocess
import threading
from dataclasses import dataclass
from typing import Any, BinaryIO

from . import wire

Replies = queue.SimpleQueue[Any]
"""Of one request: one reply, or None where there will be none."""


@dataclass(frozen=True, slots=True)
class Ends:
    """A child (or what started it, and ends with it), and this side's ends of its pipe, unbuffered."""

    child: subprocess.Popen[bytes]
    requests: BinaryIO
    replies: BinaryIO


class Link:
    """Two threads, which end with the child."""

    def __init__(self, ends: Ends) -> None:
        self._ends = ends
        self._outbox: queue.SimpleQueue[tuple[bytes, int, Replies] | None] = queue.SimpleQueue()
        self._waiting: dict[int, Replies] = {}
        self._is_over = False
        self._reader = threading.Thread(target=self._read, daemon=True, name="hogwild replies")
        self._reader.start()
        threading.Thread(target=self._write, daemon=True, name="hogwild requests").start()

    def ask(self, packed: bytes, number: int) -> Replies:
        """Sends a request of such a number, and waits for nothing."""
        replies: Replies = queue.SimpleQueue()
        self._outbox.put((packed, number, replies))
        return replies

    def end(self) -> None:
        """Asks the child to end after what it was asked before."""
        self._outbox.put(None)

    def _write(self) -> None:
        while (item := self._outbox.get()) is not None:
            packed, number, replies = item
            self._waiting[number] = replies
            self._send(packed)
            if self._is_over:  # the reader has given up all others
                self._give_up()
        self._send(wire.pack(None))
        self._reader.join()  # were the pipe closed now, the child would end in the middle of a pass
        self._ends.requests.close()

    def _send(self, packed: bytes) -> None:
        with contextlib.suppress(OSError):  # it has ended, which the reader finds
            wire.send(self._ends.requests, packed)

    def _read(self) -> None:
        with contextlib.suppress(OSError, EOFError, ValueError, TypeError):  # its end, or what is no message
            while True:
                number, *reply = wire.receive(self._ends.replies)
                if (replies := self._waiting.pop(number, None)) is not None:
                    replies.put(reply)
        self._ends.replies.close()
        self._is_over = True
        self._give_up()

    def _give_up(self) -> None:
        for number in list(self._waiting):
            if (replies := self._waiting.pop(number, None)) is not None:
                replies.put(None)
