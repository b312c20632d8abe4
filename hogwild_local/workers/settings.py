"""The numbers of one run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Self

from ..errors import InvalidArgument
from ..forms.reply_form import ReplyForm
from ..options import AnswerAt, RunOptions, WorkEnds, Worker


@dataclass(frozen=True, slots=True)
class RunSettings:
    """What the loop needs to know of a run's options. seed and date are only reported: they are in the samplers
    and the prompt already."""

    workers: tuple[Worker, ...]
    """Those that it begins with."""
    seed: int
    max_passes: int | None = RunOptions.max_passes
    """Budget of the workers' passes after the prompt; what the finisher needs comes on top. None: what room allows."""
    redundancy_every: int = RunOptions.redundancy_every
    """Tokens fed, of all workers together, between two redundancy questions; 0: never ask."""
    finisher_tokens: int = RunOptions.finisher_tokens
    """Length of the answer that the finisher may give; 0: no finisher."""
    reply_tokens: int = 0
    """Length of the reply; 0: none."""
    ends: WorkEnds = RunOptions.ends
    """What ends the work before budget and room do."""
    stop: tuple[str, ...] = ()
    answer_at: AnswerAt = RunOptions.answer_at
    """When an answer counts: with the token that closes it, or when the step that holds it ends."""
    eos_ends_run: bool = RunOptions.eos_ends_run
    """Whether one worker that ends by end of text ends the run."""
    cache_prompt: bool = RunOptions.cache_prompt
    """Whether earlier runs' prompts are made use of, and this one's is kept for later ones."""
    logprobs: int | None = RunOptions.logprobs
    """How many of the likeliest tokens are told beside each that is written; None: nothing of how likely they are."""
    date: str = ""
    form: ReplyForm = field(default_factory=ReplyForm)
    """Of the reply; and of the finisher's answer, where no reply follows."""

    @property
    def names(self) -> tuple[str, ...]:
        """Those of the workers."""
        return tuple(worker.name for worker in self.workers)

    @classmethod
    def of(
        cls, options: RunOptions, workers: Sequence[Worker], seed: int, date: str, can_reply: bool, form: ReplyForm
    ) -> Self:
        """Those of a run with these options, by the options' names; and what was made of some. can_reply: whether there
        are words that open a reply. Raises InvalidArgument where tools are to be called by no reply."""
        replies = options.reply and can_reply
        if form.family and not replies:
            raise InvalidArgument(
                "tools are called by the reply, and there is none: reply=False, or prompts without one"
            )
        made: dict[str, Any] = {
            "workers": tuple(workers),
            "seed": seed,
            "finisher_tokens": options.finisher_tokens if options.finisher and not replies else 0,
            "reply_tokens": options.reply_tokens if replies else 0,
            "date": date,
            "form": form,
        }
        same = {each.name: getattr(options, each.name) for each in fields(cls) if each.name not in made}
        return cls(**same, **made)
