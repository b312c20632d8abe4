"""What is fed beside the workers, in blocks of its own: what the user says to them, and the roles of those who join."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable

from .. import events as ev
from ..errors import InvalidArgument
from .context import Context
from .feeds import Feed
from .layouts import Block
from .team import Team

MOST_BESIDE = 64
"""Tokens in one pass: the workers do not stand still while a long text is read."""


class Aside(ABC):
    """One of them: what is fed behind the history, and what happens then."""

    name = "aside"
    """Of its block."""

    def __init__(self, run: Context, team: Team, done: Callable[[], object]) -> None:
        """done: told when it has finished, or is refused."""
        self._run, self._team, self.done = run, team, done
        self.pending: list[int] = []
        """Tokens that are to be fed."""
        self.block: Block | None = None
        """Made when the cache has room for all of them."""

    @abstractmethod
    def begin(self) -> None:
        """Finds out what there is to feed. Raises InvalidArgument."""

    @abstractmethod
    def finish(self) -> None:
        """All is fed."""

    @abstractmethod
    def tell_refused(self, reason: ev.Refusal, message: str) -> None: ...

    def refuse(self, reason: ev.Refusal, message: str) -> None:
        """It is not to be: what was fed of it is forgotten."""
        if self.block is not None:
            self._run.place.shrink(len(self.pending))
            self._team.change(lambda: self._run.layout.forget(self.block))
        self.tell_refused(reason, message)
        self.done()

    def feed(self, n: int) -> Feed:
        """The next n tokens at most."""
        if self.block is None:
            self.block = self._run.layout.block_behind(self.name)
        return Feed(self._run.layout.prefill_view(self.block), self.pending[:n])

    def fed(self, n: int) -> None:
        del self.pending[:n]
        self._run.meter.prompt_tokens += n


class Asides:
    """One after the other, in the order in which they were asked for: each reads those before it."""

    def __init__(self) -> None:
        self._waiting: deque[Aside] = deque()
        self._now: Aside | None = None
        self.n = 0
        """Tokens in the pass that was planned last."""

    def ask(self, aside: Aside) -> None:
        self._waiting.append(aside)

    def begin(self) -> None:
        """Goes on to the next one that has something to feed. What has nothing is done."""
        while self._now is None and self._waiting:
            aside = self._waiting.popleft()
            try:
                aside.begin()
            except InvalidArgument as error:
                aside.refuse("invalid", str(error))
            else:
                self._now = aside
                self._finish_if_fed()

    def plan(self, n: int, grow: Callable[[int], bool]) -> list[Feed]:
        """What to feed, of at most n tokens. grow: takes so many cells, if there are."""
        self.n, aside = 0, self._now
        if aside is None or not n:
            return []
        if aside.block is None and not grow(len(aside.pending)):
            self._now = None
            aside.refuse("cache_full", f"the cache has no room for its {len(aside.pending)} tokens")
            return []
        self.n = min(n, MOST_BESIDE, len(aside.pending))
        return [aside.feed(self.n)]

    def take(self) -> None:
        """The pass was made."""
        if self._now is not None and self.n:
            self._now.fed(self.n)
            self.n = 0
            self._finish_if_fed()

    def undo(self, n_fed: int) -> None:
        """It was not made, but for so many tokens of what was planned."""
        if self._now is not None and n_fed:
            self._now.fed(n_fed)

    def give_way(self) -> bool:
        """What was planned is refused, if there was something."""
        aside = self._now
        if aside is None or not self.n:
            return False
        self._now, self.n = None, 0
        aside.refuse("cache_full", "the cache has no room for it in layers with a sliding window: n_windows")
        return True

    def end(self) -> None:
        """The work has ended: what is left is refused."""
        left = [] if self._now is None else [self._now]
        left += self._waiting
        self._now, self.n = None, 0
        self._waiting.clear()
        for aside in left:
            aside.refuse("ended", "the work ended before")

    def _finish_if_fed(self) -> None:
        if self._now is not None and not self._now.pending:
            aside, self._now = self._now, None
            aside.finish()
            aside.done()
