"""Who samples how in a run: each worker, the finisher, and the reply."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple, TypeAlias

from ..engine.protocols import ModelLike, SamplerLike
from ..errors import InvalidArgument
from ..forms.call_grammar import Grammar
from ..options import SamplingParams, WorkEnds, Worker
from ..prompts.chat_template import ThinkTags
from .writer import worker_seed

Role: TypeAlias = Literal["finisher", "reply"]
"""Who writes after the workers."""

REPLY = -1  # where workers have their numbers


class Closing(NamedTuple):
    """What closes thoughts; "": the model knows no such thing. token: the one that does so, where it is a vote."""

    text: str = ""
    token: int | None = None


def closing_of(model: ModelLike, tags: ThinkTags | None, ends: WorkEnds, calls: bool = False) -> Closing:
    """What closes the workers' thoughts; calls: without what begins an answer, in whose place calls of tools may stand.
    Raises InvalidArgument if that is to be a vote, and no token does it."""
    text = "" if tags is None else tags.close + tags.turn if calls else tags.closing
    if ends == "answer":
        return Closing(text)
    tokens = model.tokenize(tags.close.strip(), add_special=False, parse_special=True) if tags else []
    if len(tokens) != 1:
        raise InvalidArgument(
            f"ends: {ends!r} counts who closes their thoughts, and this model has no token for that, or is not to "
            "think; ends='answer' needs none"
        )
    return Closing(text, tokens[0])


def forbidden_tokens(model: ModelLike, tags: ThinkTags | None, names: Sequence[str]) -> list[int]:
    """What no worker may sample, by the style's names for it; what the model does not have as one token is left out."""
    own = {"<think>": tags.open.strip(), "</think>": tags.close.strip()} if tags else {}
    if model.eos is not None:
        own["<eos>"] = model.token_text(model.eos)
    tokens = [model.tokenize(own.get(name, name), add_special=False, parse_special=True) for name in names]
    return [of_name[0] for of_name in tokens if len(of_name) == 1]


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
