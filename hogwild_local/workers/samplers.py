"""Who samples how in a run: each worker, the finisher, and the reply."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple, TypeAlias

from ..engine.protocols import ModelLike, SamplerLike
from ..errors import InvalidArgument
from ..forms.call_grammar import Grammar
from ..options import SamplingParams, WorkEnds, Worker
from ..prompts.dialects import ThinkTags, marks_in
from ..prompts.prompt import token_of
from .writer import worker_seed

Role: TypeAlias = Literal["finisher", "reply"]
"""Who writes after the workers."""

REPLY = -1  # where workers have their numbers


class Closing(NamedTuple):
    """What closes thoughts; "": the model knows no such thing. token: the one that does so, where it is a vote: where
    more than one is needed, the first, for thoughts cannot go on behind it. turn_ends: tokens that end a turn, beside
    those of the vocabulary."""

    text: str = ""
    token: int | None = None
    turn_ends: Set[int] = frozenset()


def closing_of(
    model: ModelLike,
    tags: ThinkTags | None,
    ends: WorkEnds,
    turn_ends: Set[int] = frozenset(),
    calls: bool = False,
) -> Closing:
    """What closes the workers' thoughts; calls: without what begins an answer, in whose place calls of tools may stand.
    Raises InvalidArgument if that is to be a vote, and no token does it."""
    text = "" if tags is None else tags.close + tags.turn if calls else tags.closing
    marks = marks_in(tags.close)[:1] if tags else []
    vote = token_of(model, marks[0]) if marks else None
    if calls and vote is not None:  # a call may follow in a message of its own, as gpt-oss's do
        turn_ends = turn_ends - {vote}
    if ends == "answer":
        return Closing(text, None, turn_ends)
    if vote is None:
        raise InvalidArgument(
            f"ends: {ends!r} counts who closes their thoughts, and this model has no token for that, or is not to "
            "think; ends='answer' needs none"
        )
    return Closing(text, vote, turn_ends)


def forbidden_tokens(model: ModelLike, tags: ThinkTags | None, names: Sequence[str]) -> list[int]:
    """What no worker may sample, by the style's names for it; what the model does not have as one token is left out."""
    own = {"<think>": marks_in(tags.open), "</think>": marks_in(tags.closing)} if tags else {}
    if model.eos is not None:
        own["<eos>"] = [model.token_text(model.eos)]
    wanted = dict.fromkeys(mark for name in names for mark in own.get(name, [name]))
    return [token for mark in wanted if (token := token_of(model, mark)) is not None]


@dataclass(frozen=True, slots=True)
class Samplers:
    """Those of one run. sampler: makes one; of_run: the settings of the reply, and of workers without their own;
    forbidden: asked when the first is made; grammar: of the reply, or of the answer that the finisher writes. Each has
    random numbers of its own, by the run's seed or that of its settings."""

    sampler: Callable[[SamplingParams], SamplerLike]
    of_run: SamplingParams
    forbidden: Callable[[], Sequence[int]]
    closing: Closing
    seed: int
    grammar: Grammar | None = None

    def of_voice(self, who: Role) -> SamplerLike:
        """The sampler of the finisher, which is greedy; of the reply, which may choose any token, and which a grammar
        of the workers' does not bind."""
        if who == "finisher":
            return self.sampler(self._held(SamplingParams(temperature=0)))
        return self.sampler(self._held(self._seeded(self.of_run, REPLY)))

    def of_worker(self, worker: Worker, index: int) -> SamplerLike:
        """The sampler of a worker, and of its number, who may not choose forbidden tokens."""
        params = worker.sampling_in(self.of_run)
        bias = {token: -math.inf for token in self.forbidden() if token != self.closing.token}
        return self.sampler(replace(self._seeded(params, index), logit_bias={**bias, **params.logit_bias}))

    def check_grammar(self) -> None:
        """Raises InvalidArgument where it is none that can be parsed."""
        if self.grammar is not None:
            try:
                self.sampler(self._held(SamplingParams())).close()
            except InvalidArgument as error:
                raise InvalidArgument(f"the form of the reply: {error}") from error

    def _held(self, params: SamplingParams) -> SamplingParams:
        """By the reply's grammar, and no other."""
        text, triggers = self.grammar or (None, ())
        return replace(params, grammar=text, grammar_triggers=triggers)

    def _seeded(self, params: SamplingParams, index: int) -> SamplingParams:
        return replace(params, seed=worker_seed(self.seed if params.seed is None else params.seed, index))
