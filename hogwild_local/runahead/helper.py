"""A rank that is not the last one: it holds the model, and computes its chunk of each prompt when the last rank says
so. Between prompts it keeps no tokens."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from ..engine.devices import PlacementRow
from ..engine.wire import plain_error
from ..errors import HogwildError
from .block_bytes import fingerprint_of
from .chunk import GivenUp, compute_ahead
from .messages import hear, tell
from .place import n_on_machine, own_settings
from .probe import probe_link, probe_rank
from .routes import Method, Prompt
from .slow_link import Limits, limited
from .transport import Transport, as_rows


def serve(transport: Transport, native: Any) -> None:
    """Answers the last rank until it says that this was all. native: the native module. Raises what the transport
    raises, and what a prompt raises that was not given up in order: the ranks are of no use to each other then."""
    helper, leader = Helper(transport, native), transport.size - 1
    while (request := hear(transport, leader)) is not None:
        name, *arguments = request
        try:
            answer = ("ok", getattr(helper, name)(*arguments))
        except HogwildError as error:
            if name == "prefill":  # the others are in the middle of it
                raise
            answer = ("error", plain_error(error))
        tell(transport, leader, answer)


class Helper:
    """What the last rank can ask."""

    def __init__(self, transport: Transport, native: Any) -> None:
        self._transport, self._native = transport, native
        self._objects: dict[int, Any] = {}
        self._computed_by: dict[int, str] = {}
        self._limits: Limits | None = None

    def rpc_load(self, path: bytes | None) -> None:
        self._native.rpc_load(path)

    def model(self, number: int, settings: dict[str, Any]) -> list[PlacementRow]:
        """Returns what of it lies where."""
        own = own_settings(settings, self._transport.places, self._transport.rank, self._native.gpus)
        model = self._objects[number] = self._native.NativeModel(own)
        self._computed_by[number] = computed_by(model, own)
        return list(model.placement())

    def room(self, model: int, share: float, arguments: Sequence[Any]) -> int:
        """Tokens that a cache can hold in this rank's part of a share of its machine's free memory."""
        n_ranks = n_on_machine(self._transport.places, self._transport.rank)
        return int(self._objects[model].room(share / n_ranks, *arguments))

    def cache(self, number: int, model: int, arguments: Sequence[Any]) -> tuple[str, str]:
        """Returns the fingerprint of its blocks, and what computes it."""
        cache = self._objects[model].cache(*arguments)
        self._objects[number] = cache
        return fingerprint(cache), self._computed_by[model]

    def probe(self, cache: int, n_before: int, n_most: int) -> Sequence[float]:
        return tuple(probe_rank(self._objects[cache], n_before, n_most))

    def link(self, n_bytes: int) -> Sequence[float]:
        return tuple(probe_link(self._transport, n_bytes))

    def free(self, number: int) -> None:
        """The number may be one that nothing came to be."""
        if (thing := self._objects.pop(number, None)) is not None:
            thing.close()

    def limit(self, limits: Sequence[float] | None) -> None:
        """For all prompts from now on."""
        self._limits = None if limits is None else Limits(*limits)  # type: ignore[arg-type]

    def clock(self) -> float:
        return time.monotonic()

    def prefill(
        self,
        cache: int,
        tokens: Sequence[int],
        known: Sequence[int],
        partition: Sequence[int],
        method: Method,
        number: int,
    ) -> tuple[bool, Any]:
        """Whether it was computed, and what this rank did; or why it was given up."""
        prompt = Prompt(tokens, tuple(known), tuple(partition), method, number)
        with limited(self._transport, self._limits) as links:
            outcome = compute_ahead(self._objects[cache], links, prompt)
        if isinstance(outcome, GivenUp):
            return False, plain_error(outcome.why)
        return True, as_rows(outcome)


def computed_by(model: Any, settings: dict[str, Any]) -> str:
    """Devices and threads of a model's chunks. Ranks of which the same is said here cost the same."""
    devices = sorted({f"{name} ({description})" for name, description, *_ in model.placement()})
    n_threads = settings.get("n_threads_chunk") or model.number("n_threads")
    return f"{', '.join(devices)}, {n_threads} threads"


def fingerprint(cache: Any) -> str:
    """What a block of this cache is good for (docs/block-format.md). Raises ModelError."""
    block = cache.new_block()
    try:
        return fingerprint_of(cache.read(block))
    finally:
        cache.free_blocks([block])
