"""What a pass over several ranks needs of whatever connects them, and what it notes of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeAlias

from .place import Place

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

Bytes: TypeAlias = "npt.NDArray[np.uint8]"


class Pending(Protocol):
    """A message on its way. Its buffer belongs to the transport until wait() or settle() has returned."""

    def wait(self) -> None:
        """Returns when it has arrived, or has left. Raises RankLost, what a rank raised, and Cancelled: where an empty
        one came in its place, for the other rank has given up; and as the watch does."""

    def settle(self) -> None:
        """As wait(), where nobody wants it any more: never Cancelled."""


class Links(Protocol):
    """Messages of bytes between ranks, in order for each pair of ranks and each tag. Nothing waits but wait()."""

    rank: int
    size: int

    @property
    def given_up(self) -> int:
        """The number of the last prompt that a rank has said to give up; 0: none."""

    def give_up(self, number: int) -> None:
        """Lets all ranks know, soon, that this prompt is given up."""

    def send(self, rank: int, tag: int, data: Bytes) -> Pending: ...
    def receive(self, rank: int, tag: int, into: Bytes) -> Pending: ...
    def reached(self, layer: int) -> None:
        """Lets the others know, some time, which layer this rank computes."""


class Transport(Links, Protocol):
    """The links of all ranks, where these are, and what becomes of them."""

    places: Sequence[Place]
    """Of all ranks."""
    watch: Callable[[list[int]], object] | None
    """Called, by a thread that waits and at each layer, with the layers that the ranks have reached."""

    def end(self) -> None:
        """There is nothing more to say. May be called twice."""

    def fail(self, error: BaseException) -> None:
        """Tells all ranks that this one is of no use any more: what they wait for raises the error."""


class LayerTrace(NamedTuple):
    """One layer on one rank: when its own keys and values were stored, when those before had come (from then on it
    attends), both in seconds of time.monotonic(); bytes received and sent."""

    stored_s: float
    received_s: float
    n_received: int
    n_sent: int


class PassTrace(NamedTuple):
    """A pass on one rank, from its first layer to its end."""

    rank: int
    n_tokens: int
    began_s: float
    ended_s: float
    layers: Sequence[LayerTrace]

    def __str__(self) -> str:
        return (
            f"rank {self.rank}: {self.n_tokens} tokens in {self.ended_s - self.began_s:.2f} s, of which it waited "
            f"{self.waited_s:.2f} s; sent {self.n_sent / 1e6:.1f} MB"
        )

    def later_by(self, seconds: float) -> PassTrace:
        """The same at another time, or by another clock."""
        layers = [
            layer._replace(stored_s=layer.stored_s + seconds, received_s=layer.received_s + seconds)
            for layer in self.layers
        ]
        return PassTrace(self.rank, self.n_tokens, self.began_s + seconds, self.ended_s + seconds, layers)

    @property
    def waited_s(self) -> float:
        """How long it waited for what other ranks sent, in all layers."""
        return sum(layer.received_s - layer.stored_s for layer in self.layers)

    @property
    def n_received(self) -> int:
        return sum(layer.n_received for layer in self.layers)

    @property
    def n_sent(self) -> int:
        return sum(layer.n_sent for layer in self.layers)


def as_rows(trace: PassTrace) -> tuple[Any, ...]:
    """A trace as plain data."""
    return (*trace[:-1], [tuple(layer) for layer in trace.layers])


def as_trace(rows: Sequence[Any]) -> PassTrace:
    """A trace that came as plain data."""
    rank, n_tokens, began_s, ended_s, layers = rows
    return PassTrace(rank, n_tokens, began_s, ended_s, [LayerTrace(*layer) for layer in layers])
