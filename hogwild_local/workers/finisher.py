"""The finisher: asks for the answer where the workers ended without one."""

from __future__ import annotations

from collections.abc import Sequence

from .. import events as ev
from ..engine.protocols import SamplerLike
from ..engine.views import Sampled
from .context import Context
from .layouts import Block
from .voice import Voice


class Finisher(Voice):
    """Answers greedily. It ends with the answer; where the run's replies have a form, with the end of that, and the
    answer is all of it."""

    def __init__(self, run: Context, asks: Sequence[int], sampler: SamplerLike, block: Block) -> None:
        super().__init__(run, asks, sampler, block, run.settings.finisher_tokens)
        self._said = ""
        self.answer: ev.Answer | None = None
        run.tell(ev.FinisherStarted(run.wording.style.finisher.text))

    def _hear(self, sampled: Sampled, text: str) -> bool:
        self._say(sampled, text)
        if self._run.settings.form.grammar:
            return False
        answer = self._run.wording.find_answer(self._run.wording.style.finisher.text + self._said)
        if answer:
            self.answer = ev.Answer(answer, None)
        return answer is not None

    def _end(self, reason: str, rest: str) -> None:
        if rest:
            self._say(None, rest)
        if self._run.settings.form.grammar and reason == "eos":
            self.answer = ev.Answer(self._said.strip(), None)

    def _say(self, sampled: Sampled | None, text: str) -> None:
        self._said += text
        token, logprob, top = sampled or (None, None, ())
        self._run.tell(ev.Token(None, token, text, self._run.meter.n_pass, logprob, top))
