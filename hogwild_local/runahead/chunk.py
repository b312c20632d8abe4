"""One rank's part of a pass: its chunk is computed while keys and values of other ranks' tokens come in and go out."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ..engine.views import Chunk, Decoded, DecodeView
from ..errors import Cancelled, OutOfMemory, RankLost
from .routes import ROUTES, Piece, Prompt
from .transport import Bytes, LayerTrace, Links, PassTrace, Pending

if TYPE_CHECKING:
    from ..engine.native import NativeCache


NOTHING: Bytes = np.empty(0, dtype=np.uint8)


class Exchange:
    """The messages of one rank in one pass, along its route. A layer's number is the tag of its messages.

    They lie in the layer's memory as struct hw_chunk has it: no byte is copied but into the cache and out of it.

    Where a prompt is given up, each rank sends empty messages in the place of those that it owes others, and waits for
    those that it is owed. So every message meets its receiver, and the ranks are ready for the next prompt.
    """

    def __init__(self, cache: NativeCache, links: Links, prompt: Prompt) -> None:
        self.route = ROUTES[prompt.method](links.rank, prompt)
        self.wants_own = bool(self.route.sends_own or self.route.sends_on)
        self._links = links
        self._sizes = [cache.layer_bytes(layer, 1) for layer in range(cache.n_layers())]
        self.layers = [_memory(self.route.n_memory * size) for size in self._sizes]
        self._number, self._n_own = prompt.number, prompt.partition[links.rank]
        layers = range(len(self._sizes))
        known = [(rank, layer) for layer in layers for rank in self.route.sends_known_to]
        pieces = (*self.route.sends_own, *self.route.sends_on)
        self._owed = deque([*known, *((piece.rank, layer) for layer in layers for piece in pieces)])
        self._times = [(0.0, 0.0)] * len(self._sizes)
        self._n_sent = [0] * len(self._sizes)
        self._receives: list[list[Pending]] = []
        self._sends: list[Pending] = []

    def begin(self, known: Sequence[Bytes]) -> None:
        """Says where what comes is to be put, before anything comes. known: what this rank has of each layer, and
        sends to those that need it."""
        self._began_s = time.monotonic()
        self._receives = [
            [self._links.receive(piece.rank, layer, self._part(layer, piece)) for piece in self.route.receives]
            for layer in range(len(self.layers))
        ]
        for layer, data in enumerate(known):
            for rank in self.route.sends_known_to:
                self._send(rank, layer, data)

    def exchange(self, layer: int) -> None:
        """Called when the rank's own keys and values of the layer are stored; afterwards it attends."""
        stored_s = time.monotonic()
        self._links.reached(layer)
        if self._links.given_up >= self._number:
            raise Cancelled("another rank has given up this prompt")
        self._send_all(layer, self.route.sends_own)
        for pending in self._receives[layer]:
            pending.wait()
        self._times[layer] = (stored_s, time.monotonic())
        self._send_all(layer, self.route.sends_on)

    def finish(self) -> PassTrace:
        """Waits until all has left."""
        ended_s = time.monotonic()
        for pending in self._sends:
            pending.settle()
        n_received = sum(piece.n for piece in self.route.receives)
        layers = [
            LayerTrace(*times, n_received * size, n_sent)
            for times, size, n_sent in zip(self._times, self._sizes, self._n_sent, strict=True)
        ]
        return PassTrace(self._links.rank, self._n_own, self._began_s, ended_s, layers)

    def give_up(self) -> None:
        """In the middle of the pass. Raises what the links raise: then the ranks are of no use to each other."""
        self._links.give_up(self._number)
        while self._owed:
            self._send(*self._owed[0], NOTHING)
        for pending in (*(pending for of_layer in self._receives for pending in of_layer), *self._sends):
            pending.settle()

    def _part(self, layer: int, piece: Piece) -> Bytes:
        size = self._sizes[layer]
        return self.layers[layer][piece.begin * size : (piece.begin + piece.n) * size]

    def _send_all(self, layer: int, pieces: Iterable[Piece]) -> None:
        for piece in pieces:
            self._send(piece.rank, layer, self._part(layer, piece))

    def _send(self, rank: int, layer: int, data: Bytes) -> None:
        self._sends.append(self._links.send(rank, layer, data))
        self._owed.popleft()
        self._n_sent[layer] += len(data)


def _memory(n_bytes: int) -> Bytes:
    """Raises OutOfMemory."""
    try:
        return np.empty(n_bytes, dtype=np.uint8)
    except MemoryError:
        raise OutOfMemory(
            f"no memory for {n_bytes} bytes of a layer that ranks exchange: cut prompts shorter"
        ) from None


class GivenUp(NamedTuple):
    """A prompt that this rank, or another one, has given up. The cache is as before, and the ranks are ready."""

    why: BaseException


def compute(
    cache: NativeCache, exchange: Exchange, view: DecodeView, known: Sequence[Bytes] = ()
) -> tuple[Decoded, PassTrace] | GivenUp:
    """view: its tokens are those that this rank's cache has not got, up to the end of its chunk. known: what the last
    rank has of each layer already, block after block. Raises what the links raise: the cache is as before then, but
    the ranks are of no use to each other."""
    exchange.begin(known)
    chunk = Chunk(exchange.route.runs, exchange.layers, exchange.exchange, exchange.wants_own)
    try:
        decoded = cache.decode_chunk(view, chunk)
    except RankLost:
        raise
    except BaseException as error:
        exchange.give_up()
        return GivenUp(error)
    return decoded, exchange.finish()


def compute_ahead(cache: NativeCache, links: Links, prompt: Prompt) -> PassTrace | GivenUp:
    """The part of a rank that is not the last one, in a block that it forgets afterwards. Raises as compute(), and
    OutOfMemory: the others wait for this rank then."""
    block = cache.new_block()
    try:
        end = prompt.n_known + sum(prompt.partition[: links.rank + 1])
        view = DecodeView([block], list(prompt.tokens[:end]), 0)
        outcome = compute(cache, Exchange(cache, links, prompt), view)
        return outcome if isinstance(outcome, GivenUp) else outcome[1]
    finally:
        cache.free_blocks([block])
