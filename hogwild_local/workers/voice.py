"""One voice after the work: it writes in a block of its own, behind all that was written."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from ..engine.protocols import SamplerLike
from ..engine.views import Sampled
from .context import Context
from .feeds import Feed, Kind
from .layouts import Block
from .text import Utf8Stream


class Voice(ABC):
    """Feeds what opens its text, and writes at most n tokens. Subclasses hear each of them."""

    kind: Kind = "closing"

    def __init__(self, run: Context, opening: Sequence[int], sampler: SamplerLike, block: Block, n: int) -> None:
        self._run, self._sampler, self._block = run, sampler, block
        self._pending, self._left = list(opening), n
        self._utf8 = Utf8Stream()

    def plan(self) -> list[Feed]:
        if not self._left:
            return []
        n, place = len(self._pending), self._run.place
        if not place.grow(n, max(0, place.reserved - n)):
            self._end_here("cache_full")
            return []
        return [Feed(self._run.layout.closing_view(self._block), self._pending, self._sampler)]

    def take(self, tokens: Sequence[Sampled | None]) -> None:
        (sampled,) = tokens
        assert sampled is not None
        token = sampled.token
        self._run.meter.tokens += 1
        self._left -= 1
        self._pending = [token]
        is_end = self._run.ends_turn(token)
        is_done = self._hear(sampled, "" if is_end else self._utf8.feed(self._bytes(token)))
        if is_end or is_done or not self._left:
            self._end_here("eos" if is_end else "stop" if is_done else "length")

    def undo(self, n_fed: int) -> None:
        self._run.place.give_back(len(self._pending) - n_fed)
        del self._pending[:n_fed]

    def give_way(self) -> bool:
        self._end_here("cache_full")
        return True

    def _bytes(self, token: int) -> bytes:
        """What a token is in its text."""
        return self._run.model.token_bytes(token)

    def _end_here(self, reason: str) -> None:
        self._left = 0
        self._end(reason, self._utf8.flush())

    @abstractmethod
    def _hear(self, sampled: Sampled, text: str) -> bool:
        """A token was written, and completes this text. True: it is done."""

    @abstractmethod
    def _end(self, reason: str, rest: str) -> None:
        """It writes no more; rest: what an incomplete character becomes."""
