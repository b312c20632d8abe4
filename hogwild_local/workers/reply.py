"""The reply: what one voice says to the user when the work has ended, in prose."""

from __future__ import annotations

import hashlib
from typing import cast

from .. import events as ev
from ..engine.protocols import SamplerLike
from ..engine.views import Sampled
from .calling import CallStream
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
        self._calls = CallStream(run.settings.form)
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

    def _hear(self, sampled: Sampled, text: str) -> bool:
        self._say(sampled, self._stops.feed(self._calls.feed(text)))
        return self._stops.found is not None

    def _end(self, reason: str, rest: str) -> None:
        self._is_open = False
        rest = self._calls.feed(rest)
        held, calls = self._calls.end()
        if rest := self._stops.feed(rest + held) + self._stops.flush():
            self._say(None, rest)
        for index, (name, arguments) in enumerate(calls):
            self._run.tell(ev.ToolCall(self._id_of(index, name, arguments), name, arguments))
        self._run.tell(ev.ReplyEnded(self._said, cast(ev.ReplyReason, reason)))

    def _bytes(self, token: int) -> bytes:
        """Where tools may be called, with the names of control tokens, which calls begin with."""
        made = super()._bytes(token)
        if made or not self._run.settings.form.family:
            return made
        return self._run.model.token_text(token).encode()

    def _id_of(self, index: int, name: str, arguments: str) -> str:
        """Another one for each call of a conversation, the same where a run is repeated: nine letters and digits, as
        some templates want it."""
        of = f"{self._run.settings.seed}/{self._run.meter.prompt_tokens}/{index}/{name}/{arguments}"
        return hashlib.blake2b(of.encode(errors="surrogatepass"), digest_size=8).hexdigest()[:9]

    def _say(self, sampled: Sampled | None, text: str) -> None:
        self._said += text
        token, logprob, top = sampled or (None, None, ())
        self._run.tell(ev.ReplyToken(token, text, self._run.meter.n_pass, logprob, top))
