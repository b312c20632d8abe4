"""What the parts of one run share."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass, field

from .. import events as ev
from ..engine.protocols import CacheLike, ModelLike
from ..prompts.prompt import inner_tokens
from ..prompts.style import Wording
from .admission import Place
from .layouts import Layout
from .meter import Meter
from .settings import RunSettings


@dataclass(frozen=True, slots=True)
class Context:
    """The things themselves; each part of the run changes only what it owns, and tells what happened in .events."""

    model: ModelLike
    cache: CacheLike
    layout: Layout
    wording: Wording
    settings: RunSettings
    place: Place
    turn_ends: Set[int] = frozenset()
    """Tokens that end a turn, beside those of the vocabulary."""
    meter: Meter = field(default_factory=Meter)
    events: list[ev.Event] = field(default_factory=list)
    """Those that the consumer has not got yet."""

    def tell(self, *events: ev.Event) -> None:
        self.events.extend(events)

    def told(self) -> list[ev.Event]:
        """Hands the events out."""
        events = self.events[:]
        self.events.clear()
        return events

    def tokens(self, text: str) -> list[int]:
        """Those of a text that stands inside another."""
        return inner_tokens(self.model, text)

    def ends_turn(self, token: int) -> bool:
        """Whether who writes it says no more."""
        return token in self.turn_ends or self.model.is_eog(token)

    def ends_work(self, token: int) -> bool:
        """Whether a worker that writes it says no more. The end of a paragraph may be what ends a turn (RWKV World): a
        step ends there, as elsewhere."""
        return self.ends_turn(token) and not self.model.token_bytes(token).isspace()

    def usage(self) -> ev.Usage:
        """Up to now."""
        return self.meter.usage(self.place.left)
