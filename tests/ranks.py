"""Ranks in threads of one process: the code of a pass over several ranks, without an MPI."""

from __future__ import annotations

import queue
import threading
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from hogwild_local.errors import Cancelled, RankLost
from hogwild_local.runahead.place import here
from hogwild_local.runahead.transport import Bytes

MOST_S = 60.0


def rounding(name: str, logits: npt.NDArray[np.float32]) -> float:
    """What logits of a tiny model may differ by where sums are made in another order. Gemma's GELU is looked up in ggml
    by its argument as f16: where that falls to the next number, it changes by 2**-11 of itself."""
    return 1e-3 * (float(np.abs(logits).max()) if name == "gemma2" else 1.0)


@dataclass
class Wires:
    """What connects the ranks. lose: a rank and a tag at which that rank breaks down."""

    size: int
    lose: tuple[int, int] | None = None
    mail: defaultdict[tuple[int, int, int], queue.SimpleQueue[bytes]] = field(
        default_factory=lambda: defaultdict(queue.SimpleQueue)
    )
    given_up: int = 0
    faults: dict[tuple[int, int], BaseException] = field(default_factory=dict)
    """What a rank raises when it has reached a layer, once."""
    lost: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def box(self, source: int, target: int, tag: int) -> queue.SimpleQueue[bytes]:
        with self.lock:  # or two threads would make one each
            return self.mail[source, target, tag]

    def transport(self, rank: int) -> QueueTransport:
        return QueueTransport(self, rank)


class Done:
    def wait(self) -> None:
        pass

    def settle(self) -> None:
        pass


@dataclass
class Receiving:
    wires: Wires
    mail: queue.SimpleQueue[bytes]
    into: Bytes

    data: bytes | None = None

    def wait(self) -> None:
        self.settle()
        if self.data == b"":
            raise Cancelled("another rank has given up this prompt")

    def settle(self) -> None:
        for _ in range(int(MOST_S / 0.05)):
            try:
                if self.data is None:
                    self.data = self.mail.get(timeout=0.05)
                if self.data:
                    self.into[:] = memoryview(self.data)
                return
            except queue.Empty:
                if self.wires.lost.is_set():
                    raise RankLost("a rank is lost") from None
        raise AssertionError("nobody sent it")


class QueueTransport:
    def __init__(self, wires: Wires, rank: int) -> None:
        self.wires, self.rank, self.size = wires, rank, wires.size
        self.places = [here()] * wires.size
        self.n_sent = 0
        self.watch: Callable[[list[int]], object] | None = None

    @property
    def given_up(self) -> int:
        return self.wires.given_up

    def give_up(self, number: int) -> None:
        self.wires.given_up = number

    def send(self, rank: int, tag: int, data: Bytes) -> Done:
        if self.wires.lose == (self.rank, tag):
            self.wires.lost.set()
            raise RankLost(f"rank {self.rank} is lost")
        self.n_sent += len(data)
        self.wires.box(self.rank, rank, tag).put(data.tobytes())
        return Done()

    def receive(self, rank: int, tag: int, into: Bytes) -> Receiving:
        return Receiving(self.wires, self.wires.box(rank, self.rank, tag), into)

    def reached(self, layer: int) -> None:
        if (error := self.wires.faults.pop((self.rank, layer), None)) is not None:
            raise error

    def end(self) -> None:
        pass

    def fail(self, error: BaseException) -> None:
        self.wires.lost.set()
