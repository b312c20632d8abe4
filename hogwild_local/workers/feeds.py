"""What a run wants of the next forward pass, and the parts of a run that ask for passes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple, Protocol, TypeAlias

from ..engine.protocols import SamplerLike
from ..engine.views import Sampled
from .layouts import Block

Kind: TypeAlias = Literal["prompt", "workers", "closing"]
"""Of a pass: a chunk of the prompt; one of the budget; one on top of it, in which no worker samples: with their last
tokens, with what is said where they leave it no room, or with the finisher's."""


class Feed(NamedTuple):
    """One view of a pass: its blocks, the tokens for the last of them, and what chooses the next one (None: nothing is
    sampled yet). n_later: of the prompt; so many of its tokens are to be fed after those of the pass."""

    view: Sequence[Block]
    tokens: Sequence[int]
    sampler: SamplerLike | None = None
    n_later: int | None = None


class Phase(Protocol):
    """A part of a run. Its events go to a list that the loop hands out after each pass."""

    @property
    def kind(self) -> Kind:
        """Of the pass that was planned last."""

    def plan(self) -> list[Feed]:
        """What to feed next; nothing: the phase is over."""

    def take(self, tokens: Sequence[Sampled | None]) -> None:
        """The pass was made: what was sampled, feed by feed (None where there was no sampler)."""

    def undo(self, n_fed: int) -> None:
        """It was not made, for the cache had no room: cells that were taken for it are given back. n_fed: tokens of it
        that are fed nevertheless, those that its only view begins with."""

    def give_way(self) -> bool:
        """Nor is there more room: less is fed, somebody ends, or others are waited for. False: that helps nobody."""
