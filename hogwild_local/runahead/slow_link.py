"""Links between ranks made slower than they are, to measure what a prompt of several ranks would take over others.

Each rank holds back what it sends: on a link messages go one after the other, each as long as its bytes take, and are
handed on when they would have arrived. Who waits sleeps, so the computing is not slowed down.

Noise is others' traffic: in each period it takes a part of the rate, in both directions, of one pair of neighbours, or
of none, drawn at random.
"""

from __future__ import annotations

import contextlib
import math
import queue
import random
import threading
import time
from collections.abc import Iterator
from typing import NamedTuple

from ..errors import HogwildError
from .transport import Bytes, Links, Pending

NOISE_PERIOD_S = 0.1


class Limits(NamedTuple):
    """Of each link, in each direction. noise: the part of a disturbed link's rate that others take, below 1; seed: what
    is disturbed when."""

    bytes_per_s: float
    latency_s: float = 0.0
    noise: float = 0.0
    seed: int = 0


def disturbed(seed: int, period: int, n_ranks: int) -> int:
    """The pair of neighbours, by its first rank, that is disturbed in a period; n_ranks - 1: none is."""
    return random.Random(f"{seed} {period}").randrange(n_ranks)


class Link:
    """When messages arrive that go from a rank to another one. begin_s: when the first period of noise begins."""

    def __init__(self, limits: Limits, source: int, target: int, n_ranks: int, begin_s: float) -> None:
        self._limits, self._n_ranks, self._begin_s = limits, n_ranks, begin_s
        self._pair = min(source, target) if abs(source - target) == 1 else None
        self._free_s = begin_s

    def arrival_s(self, now: float, n_bytes: int) -> float:
        """Of a message that is sent now, behind those that were sent before it."""
        self._free_s = self._end_s(max(now, self._free_s), n_bytes)
        return self._free_s + self._limits.latency_s

    def _end_s(self, at: float, n_bytes: float) -> float:
        rate, noise = self._limits.bytes_per_s, self._limits.noise
        if self._pair is None or not noise:
            return at + n_bytes / rate
        period = math.floor((at - self._begin_s) / NOISE_PERIOD_S)
        while True:
            end = self._begin_s + (period + 1) * NOISE_PERIOD_S
            is_disturbed = disturbed(self._limits.seed, period, self._n_ranks) == self._pair
            speed = rate * (1 - noise) if is_disturbed else rate
            if n_bytes <= (end - at) * speed:
                return at + n_bytes / speed
            n_bytes -= max(0.0, end - at) * speed
            at, period = end, period + 1


class _Message:
    def __init__(self, rank: int, tag: int, data: Bytes, arrival_s: float) -> None:
        self.rank, self.tag, self.data, self.arrival_s = rank, tag, data, arrival_s
        self._is_sent = threading.Event()
        self._pending: Pending | HogwildError | None = None

    def send(self, links: Links) -> None:
        try:
            self._pending = links.send(self.rank, self.tag, self.data)
        except HogwildError as error:
            self._pending = error
        self._is_sent.set()

    def wait(self) -> None:
        self._sent().wait()

    def settle(self) -> None:
        self._sent().settle()

    def _sent(self) -> Pending:
        self._is_sent.wait()
        if isinstance(self._pending, HogwildError):
            raise self._pending
        assert self._pending is not None
        return self._pending


class SlowLinks:
    """The links of one rank, for one prompt."""

    def __init__(self, links: Links, limits: Limits) -> None:
        self.rank, self.size = links.rank, links.size
        self._links = links
        self._is_over = threading.Event()
        peers = [rank for rank in range(self.size) if rank != self.rank]
        now = time.monotonic()
        self._link_to = {peer: Link(limits, self.rank, peer, self.size, now) for peer in peers}
        self._queues = {peer: queue.SimpleQueue[_Message | None]() for peer in peers}
        self._threads = [threading.Thread(target=self._carry, args=(peer,), daemon=True) for peer in peers]
        for thread in self._threads:
            thread.start()

    @property
    def given_up(self) -> int:
        return self._links.given_up

    def give_up(self, number: int) -> None:
        self._links.give_up(number)

    def send(self, rank: int, tag: int, data: Bytes) -> Pending:
        arrival_s = self._link_to[rank].arrival_s(time.monotonic(), len(data))
        message = _Message(rank, tag, data, arrival_s)
        self._queues[rank].put(message)
        return message

    def receive(self, rank: int, tag: int, into: Bytes) -> Pending:
        return self._links.receive(rank, tag, into)

    def reached(self, layer: int) -> None:
        self._links.reached(layer)

    def close(self) -> None:
        """What is under way is dropped."""
        self._is_over.set()
        for messages in self._queues.values():
            messages.put(None)
        for thread in self._threads:
            thread.join()

    def _carry(self, peer: int) -> None:
        while (message := self._queues[peer].get()) is not None:
            if self._is_over.wait(max(0.0, message.arrival_s - time.monotonic())):
                break
            message.send(self._links)


@contextlib.contextmanager
def limited(links: Links, limits: Limits | None) -> Iterator[Links]:
    """The links as they are, or slower ones, for one prompt."""
    if limits is None:
        yield links
        return
    slow = SlowLinks(links, limits)
    try:
        yield slow
    finally:
        slow.close()
