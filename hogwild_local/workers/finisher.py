"""The finisher: asks for the answer where the workers ended without one."""

from __future__ import annotations

from collections.abc import Sequence

from .. import events as ev
from ..engine.protocols import SamplerLike
from .context import Context
from .feeds import Feed, Kind
from .layouts import Block
from .text import Utf8Stream


class Finisher:
    """Answers greedily, in a block of its own that sees all that was written."""

    kind: Kind = "closing"

    def __init__(self, run: Context, asks: Sequence[int], sampler: SamplerLike, block: Block) -> None:
        self._run, self._sampler = run, sampler
        self._block = block
        self._pending = list(asks)
        self._left = run.settings.finisher_tokens
        self._utf8 = Utf8Stream()
        self._said = ""
        self.answer: ev.Answer | None = None
        run.tell(ev.FinisherStarted(run.wording.style.finisher.text))

    def plan(self) -> list[Feed]:
        if not self._left:
            return []
        self._run.place.spend(len(self._pending))
        return [Feed(self._run.layout.closing_view(self._block), self._pending, self._sampler)]

    def take(self, tokens: Sequence[int | None]) -> None:
        (token,) = tokens
        assert token is not None
        self._run.meter.tokens += 1
        self._left -= 1
        self._pending = [token]
        is_end = self._run.model.is_eog(token)
        self._say(token, "" if is_end else self._utf8.feed(self._run.model.token_bytes(token)))
        answer = self._run.wording.find_answer(self._run.wording.style.finisher.text + self._said)
        if answer:
            self.answer = ev.Answer(answer, None)
        if answer or is_end:
            self._left = 0
        if not self._left and (rest := self._utf8.flush()):
            self._say(None, rest)

    def _say(self, token: int | None, text: str) -> None:
        self._said += text
        self._run.tell(ev.Token(None, token, text, self._run.meter.n_pass))
