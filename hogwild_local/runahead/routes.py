"""What goes where in each layer of a prompt: for each rank, which tokens' keys and values it is sent by whom, and sends
to whom. Only numbers of tokens."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias, get_args

from ..checks import one_of
from .partition import Partition

Method: TypeAlias = Literal["runahead", "all-gather", "alone"]
"""How a prompt is computed: by ranks that run ahead; by ranks of which each has all before it attends (TSP, the paper's
baseline); by the last rank alone."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """What all ranks are told: all tokens; the lengths of the blocks that the last rank has already, which come first;
    the chunks of the other tokens; the method, which is not "alone"; a number above those of earlier prompts."""

    tokens: Sequence[int]
    known: Sequence[int]
    partition: Partition
    method: Method = "runahead"
    number: int = 1

    @property
    def n_known(self) -> int:
        return sum(self.known)


class Piece(NamedTuple):
    """A message: the rank that it comes from or goes to, and which tokens of a layer's memory it is."""

    rank: int
    begin: int
    n: int


class Route(NamedTuple):
    """One rank's messages in each layer, in the order of their tokens. The layer's memory holds n_memory tokens: those
    of the runs, which are computed elsewhere, those of the rank itself if it sends them, and maybe more."""

    runs: Sequence[int]
    n_memory: int
    receives: Sequence[Piece]
    sends_own: Sequence[Piece]
    """What goes out before anything is waited for."""
    sends_on: Sequence[Piece]
    """What goes out when all has come."""
    sends_known_to: Sequence[int]
    """The ranks that the last one sends what it has of all layers before the first one."""


def run_ahead(rank: int, prompt: Prompt) -> Route:
    """Each rank is sent all that is before its chunk by the rank before it, and sends it on with its own behind. What
    is known goes from the last rank to the first one, and so to all: the last but one need not send it back."""
    last = len(prompt.partition) - 1
    before, n_own = prompt.partition[:rank], prompt.partition[rank]
    if rank == last:
        receives = [Piece(rank - 1, 0, sum(before))]
        return Route(before, sum(before), receives, (), (), [0] if prompt.known else ())
    runs = (*prompt.known, *before)
    n_left_out = prompt.n_known if rank == last - 1 else 0
    n_received = sum(runs)
    receives = [Piece(rank - 1 if rank else last, 0, n_received)] if runs else []
    on = [Piece(rank + 1, n_left_out, n_received + n_own - n_left_out)]
    return Route(runs, n_received + n_own, receives, (), on, ())


def all_gather(rank: int, prompt: Prompt) -> Route:
    """Each rank sends its own to all others, and waits for theirs, also those that it does not attend to."""
    last = len(prompt.partition) - 1
    known = prompt.known if rank < last else ()
    begins, end = [], sum(known)
    for n in prompt.partition:
        begins.append(end)
        end += n
    others = [other for other in range(last + 1) if other != rank]
    of_known = [Piece(last, 0, sum(known))] if known else []
    receives = [*of_known, *(Piece(other, begins[other], prompt.partition[other]) for other in others)]
    own = [Piece(other, begins[rank], prompt.partition[rank]) for other in others]
    runs = (*known, *prompt.partition[:rank])
    return Route(runs, end, receives, own, (), others if rank == last and prompt.known else ())


ROUTES: dict[Method, Callable[[int, Prompt], Route]] = {"runahead": run_ahead, "all-gather": all_gather}


def checked_method(name: object) -> Method:
    """Raises InvalidArgument."""
    return one_of(name, "method", get_args(Method))  # type: ignore[return-value]
