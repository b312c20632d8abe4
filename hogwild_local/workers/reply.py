"""The reply: what one voice says to the user when the work has ended, in prose."""

from __future__ import annotations

from typing import cast

from .. import events as ev
from ..engine.protocols import SamplerLike
from .context import Context
from .layouts import Block
from .opening import Opening
from .text import StopStrings
from .voice import Voice


class Reply(Voice):
    """Closes the thoughts, and writes until the model says end of text. .answer is one that stands in it."""

    def __init__(self, run: Context, opening: Opening, sampler: SamplerLike, block: Block) -> None:
        super().__init__(run, opening.reply, sampler, block, run.settings.reply_tokens)
        self._stops = StopStrings(run.settings.stop)
        self._said = ""
        self._is_open = True
        run.tell(ev.ReplyStarted(opening.reply_text))

    @property
    def answer(self) -> ev.Answer | None:
        answer = self._run.wording.find_answer(self._said)
        return ev.Answer(answer, None) if answer else None

    def cancel(self) -> None:
        """It ends where it is."""
        if self._is_open:
            self._end_here("cancelled")

    def _hear(self, token: int, text: str) -> bool:
        self._say(token, self._stops.feed(text))
        return self._stops.found is not None

    def _end(self, reason: str, rest: str) -> None:
        self._is_open = False
        if rest := self._stops.feed(rest) + self._stops.flush():
            self._say(None, rest)
        self._run.tell(ev.ReplyEnded(self._said, cast(ev.ReplyReason, reason)))

    def _say(self, token: int | None, text: str) -> None:
        self._said += text
        self._run.tell(ev.ReplyToken(token, text, self._run.meter.n_pass))
