"""One rank's part of a pass: its chunk is computed while keys and values of the tokens before it come in, and go on."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..engine.views import Chunk, Decoded, DecodeView
from ..errors import OutOfMemory
from .partition import Partition
from .transport import Bytes, LayerTrace, PassTrace, Pending, Transport

if TYPE_CHECKING:
    from ..engine.native import NativeCache


@dataclass(frozen=True, slots=True)
class Prompt:
    """What all ranks are told: all tokens; the lengths of the blocks that the last rank has already, which come first;
    the chunks of the other tokens. The last rank sends these blocks to the first one, and so they reach all."""

    tokens: Sequence[int]
    known: Sequence[int]
    partition: Partition

    @property
    def n_known(self) -> int:
        return sum(self.known)


class Exchange:
    """The messages of one rank in one pass: a message a layer, whose number is its tag.

    A layer's buffer holds run after run, as in struct hw_chunk: what is received, and then the rank's own chunk. So it
    goes on as it is, and no byte is copied but into the cache and out of it.
    """

    def __init__(self, cache: NativeCache, transport: Transport, prompt: Prompt) -> None:
        rank, self._last = transport.rank, transport.size - 1
        self._transport, self._rank = transport, rank
        before = prompt.partition[:rank]
        self.runs = before if rank == self._last else (*prompt.known, *before)
        n_received, n_own = sum(self.runs), prompt.partition[rank]
        sends = rank < self._last
        sizes = [cache.layer_bytes(layer, 1) for layer in range(cache.n_layers())]
        self._n_received = [n_received * size for size in sizes]
        # The last rank has what is known, and is sent the rest.
        n_left_out = prompt.n_known if rank == self._last - 1 else 0
        self._sent_from = [n_left_out * size for size in sizes]
        self.layers = [_memory((n_received + n_own * sends) * size) for size in sizes]
        self._trace = [(0.0, 0.0)] * len(sizes)
        self._began_s = time.monotonic()
        self._n_own = n_own
        self._receives: list[Pending] = []
        self._sends: list[Pending] = []
        self.send = self._send if sends else None

    def post(self) -> None:
        """Says where what comes is to be put, before anything comes."""
        source = self._rank - 1 if self._rank else self._last
        if self.runs:
            self._receives = [
                self._transport.receive(source, layer, data[:n])
                for layer, (data, n) in enumerate(zip(self.layers, self._n_received, strict=True))
            ]

    def receive(self, layer: int) -> None:
        stored_s = time.monotonic()
        self._transport.reached(layer)
        self._receives[layer].wait()
        self._trace[layer] = (stored_s, time.monotonic())

    def _send(self, layer: int) -> None:
        if not self.runs:
            self._transport.reached(layer)
            self._trace[layer] = (time.monotonic(),) * 2
        data = self.layers[layer][self._sent_from[layer] :]
        self._sends.append(self._transport.send(self._rank + 1, layer, data))

    def finish(self) -> PassTrace:
        """Waits until all has left."""
        ended_s = time.monotonic()
        for pending in self._sends:
            pending.wait()
        rows = zip(self._trace, self.layers, self._n_received, self._sent_from, strict=True)
        layers = [LayerTrace(*times, n_in, len(data) - begin if self.send else 0) for times, data, n_in, begin in rows]
        return PassTrace(self._rank, self._n_own, self._began_s, ended_s, layers)


def _memory(n_bytes: int) -> Bytes:
    """Raises OutOfMemory."""
    try:
        return np.empty(n_bytes, dtype=np.uint8)
    except MemoryError:
        raise OutOfMemory(
            f"no memory for {n_bytes} bytes of a layer that ranks exchange: cut prompts shorter"
        ) from None


def compute(cache: NativeCache, transport: Transport, prompt: Prompt, view: DecodeView) -> tuple[Decoded, PassTrace]:
    """view: its tokens are those that this rank's cache has not got, up to the end of its chunk. Raises what
    hw_decode_chunk and the transport raise: the cache is as before then."""
    exchange = Exchange(cache, transport, prompt)
    exchange.post()
    decoded = cache.decode_chunk(view, Chunk(exchange.runs, exchange.layers, exchange.receive, exchange.send))
    return decoded, exchange.finish()


def compute_ahead(cache: NativeCache, transport: Transport, prompt: Prompt) -> PassTrace:
    """The part of a rank that is not the last one, in a block that it forgets afterwards."""
    block = cache.new_block()
    try:
        end = prompt.n_known + sum(prompt.partition[: transport.rank + 1])
        _, trace = compute(cache, transport, prompt, DecodeView([block], list(prompt.tokens[:end]), 0))
        return trace
    finally:
        cache.free_blocks([block])


def compute_last(
    cache: NativeCache, transport: Transport, prompt: Prompt, view: DecodeView, known: Sequence[Bytes]
) -> tuple[Decoded, PassTrace]:
    """The last rank's part: view feeds all that is new. known: what it has of each layer already, block after block."""
    sends = [transport.send(0, layer, data) for layer, data in enumerate(known)]
    result = compute(cache, transport, prompt, view)
    for pending in sends:
        pending.wait()
    return result
