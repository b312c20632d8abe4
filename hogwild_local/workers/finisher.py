"""The finisher: asks for the answer where the workers ended without one."""

from __future__ import annotations

from collections.abc import Sequence

from .. import events as ev
from ..engine.protocols import SamplerLike
from .context import Context
from .layouts import Block
from .voice import Voice


class Finisher(Voice):
    """Answers greedily. It ends with the answer."""

    def __init__(self, run: Context, asks: Sequence[int], sampler: SamplerLike, block: Block) -> None:
        super().__init__(run, asks, sampler, block, run.settings.finisher_tokens)
        self._said = ""
        self.answer: ev.Answer | None = None
        run.tell(ev.FinisherStarted(run.wording.style.finisher.text))

    def _hear(self, token: int, text: str) -> bool:
        self._say(token, text)
        answer = self._run.wording.find_answer(self._run.wording.style.finisher.text + self._said)
        if answer:
            self.answer = ev.Answer(answer, None)
        return answer is not None

    def _end(self, reason: str, rest: str) -> None:
        if rest:
            self._say(None, rest)

    def _say(self, token: int | None, text: str) -> None:
        self._said += text
        self._run.tell(ev.Token(None, token, text, self._run.meter.n_pass))
