"""What a run tells its consumer: one small frozen dataclass per event, in the order in which things happen.

    RunQueued... while it waits for other runs;
    RunStarted, PromptProgress..., StepStarted of each worker;
    then in every pass, in worker order: Token of all who sampled, then what came to an end:
        StepEnded, RedundancyCheck?, StepStarted, or StepEnded?, WorkerFinished;
        and at its end PassEnded;
    between tokens and ends: Said, or WorkerJoined and its StepStarted; NotSaid and WorkerRefused at any time;
    StepEnded?, WorkerFinished of those that end between two passes (no room, nothing left to read);
    FinisherStarted?, then in every pass of it: Token, PassEnded;
    ReplyStarted?, then in every pass of it: ReplyToken, PassEnded; ToolCall..., ReplyEnded;
    at last Answer?, RunEnded.

RunEnded is always last; a run that is closed or fails has none. A run that is cancelled in the queue has only
WorkerFinished of each worker, and RunEnded.
Worker names are the user's; token is the model's token id; text is what may be shown already.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

Reason = Literal["answer", "closed", "eos", "stop", "stopped", "cache_full", "budget", "cancelled"]
"""Why a worker or a run ended: an answer was found; it closed its thoughts, or enough of the workers had done so; the
model said end of text; a stop string was written; stop() was called; the cache had no room for it; max_passes passes
were made, or without such a number the room was used up; cancel() was called. Of several workers' reasons, a run's is
the first in this order: answer, cancelled, closed, budget, cache_full, stopped, stop, eos."""

ReplyReason = Literal["eos", "stop", "length", "cache_full", "cancelled"]
"""Why a reply ended: the model said end of text; a stop string was written; reply_tokens were written; the cache had no
room for more; cancel() was called."""


Refusal = Literal["ended", "cache_full", "invalid"]
"""Why something that was asked of a run was not done: the work had ended before; the cache had no room for it; it was
wrong, which only showed then."""


@dataclass(frozen=True, slots=True)
class Timings:
    """Times of a run. passes are those of the budget, at most max_passes; closing_passes come on top: of the workers'
    last tokens, which finisher and reply are to read, of these two, and of what is said where no worker has room in the
    same pass. prompt_ms is prefill; all these passes took generate_ms, decode_ms of it inside the engine, which decodes
    and samples (for other runs too, and may let this one wait for them); ms_per_pass is the mean of both kinds;
    tokens_per_second counts sampled tokens over generate_ms."""

    passes: int = 0
    closing_passes: int = 0
    prompt_ms: float = 0.0
    generate_ms: float = 0.0
    decode_ms: float = 0.0
    ms_per_pass: float = 0.0
    tokens_per_second: float = 0.0


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of a run: of prompt, headers, roles and what the user said, sampled by all workers, finisher and reply,
    and cells of the cache that it can still have: those that other runs have, or that are kept for their ends, are not
    among them.
    cached_tokens: those of the prompt that earlier runs have computed, and this one has not."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    context_left: int = 0
    cached_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Event:
    """Base class of all events."""

    @classmethod
    def kind(cls) -> str:
        """The event's name in JSON, e.g. "step_ended"."""
        return re.sub(r"(?<!^)([A-Z])", r"_\1", cls.__name__).lower()

    def to_dict(self) -> dict[str, Any]:
        """A dict of plain values, its first key "event"; without log-probabilities that nobody asked for."""
        made = {"event": self.kind(), **asdict(self)}
        if made.get("logprob", 0.0) is None:
            del made["logprob"], made["top_logprobs"]
        return made

    def to_json(self) -> str:
        """One line of ASCII JSON, as `hogwild run --json` prints it."""
        return json.dumps(self.to_dict())


@dataclass(frozen=True, slots=True)
class RunQueued(Event):
    """Nothing is computed yet: other runs must end first. position 1 is the next to begin; told again when it
    changes."""

    position: int


@dataclass(frozen=True, slots=True)
class RunStarted(Event):
    """The prompt is tokenized and fits. seed and date repeat this run, also where the caller gave none; date is the day
    that the chat template may have named."""

    model: str
    workers: tuple[str, ...]
    layout: str
    n_ctx: int
    seed: int
    prompt_tokens: int
    date: str = ""


@dataclass(frozen=True, slots=True)
class PromptProgress(Event):
    """done of total prompt tokens are in the cache (headers and separators, and what earlier runs left, included)."""

    done: int
    total: int


@dataclass(frozen=True, slots=True)
class StepStarted(Event):
    """text (introduction, or step prefix with the redundancy question, if any) was put into the worker's
    mouth."""

    worker: str
    step: int
    text: str


@dataclass(frozen=True, slots=True)
class Token(Event):
    """A worker sampled a token. worker None: the finisher. text is "" while a character is incomplete or a
    stop string may be in the making; token None: text held back until now, without a new token.

    Where logprobs were asked for: logprob is the natural logarithm of the token's probability in the model's own
    distribution, before any sampler, and top_logprobs are the likeliest tokens there with theirs, the likeliest
    first; the token itself need not be among them."""

    worker: str | None
    token: int | None
    text: str
    n_pass: int
    logprob: float | None = None
    top_logprobs: Sequence[tuple[int, float]] = ()


@dataclass(frozen=True, slots=True)
class StepEnded(Event):
    """A worker ended a step: text is all of it, prefix included, n_tokens the sampled ones. reason "end": by
    the end-of-step rule; otherwise the worker finished, and this was its last, unfinished step."""

    worker: str
    step: int
    text: str
    n_tokens: int
    reason: str


@dataclass(frozen=True, slots=True)
class RedundancyCheck(Event):
    """The step that starts now opens with the question whether the worker's work is redundant."""

    worker: str
    step: int


@dataclass(frozen=True, slots=True)
class Said(Event):
    """What the user said to all workers (to None) or to one of them stands in the history, as shown: all read it from
    the next pass on."""

    text: str
    to: str | None
    shown: str
    n_pass: int


@dataclass(frozen=True, slots=True)
class NotSaid(Event):
    """What the user said came to nothing, and no worker has read it."""

    text: str
    to: str | None
    reason: Refusal
    message: str


@dataclass(frozen=True, slots=True)
class WorkerJoined(Event):
    """One more worker; it writes from the next pass on."""

    worker: str
    n_pass: int


@dataclass(frozen=True, slots=True)
class WorkerRefused(Event):
    """A worker that was to join does not: it is none of the run's."""

    worker: str
    reason: Refusal
    message: str


@dataclass(frozen=True, slots=True)
class WorkerFinished(Event):
    """The worker writes no more; the others may go on. "answer": the answer of some worker ended the run."""

    worker: str
    reason: Reason


@dataclass(frozen=True, slots=True)
class PassEnded(Event):
    """A forward pass after the prompt was made, and all that followed from it was told. timings and usage are those of
    the run up to now; n_pass is passes and closing_passes together."""

    n_pass: int
    timings: Timings
    usage: Usage


@dataclass(frozen=True, slots=True)
class FinisherStarted(Event):
    """The workers ended without an answer: text asks for it. Token events with worker None follow."""

    text: str


@dataclass(frozen=True, slots=True)
class ReplyStarted(Event):
    """The work has ended, and the reply begins behind text, which is not part of it. ReplyToken events follow."""

    text: str


@dataclass(frozen=True, slots=True)
class ReplyToken(Event):
    """The reply goes on. All fields are as those of Token."""

    token: int | None
    text: str
    n_pass: int
    logprob: float | None = None
    top_logprobs: Sequence[tuple[int, float]] = ()


@dataclass(frozen=True, slots=True)
class ToolCall(Event):
    """The reply calls a tool. arguments: a JSON object, as text; id: what a message with the tool's result names. Of a
    call that the reply's end cut off there is none: it is part of the reply's text."""

    id: str
    name: str
    arguments: str

    def in_message(self) -> dict[str, Any]:
        """As an assistant's message has it, of OpenAI's form."""
        return {"id": self.id, "type": "function", "function": {"name": self.name, "arguments": self.arguments}}


@dataclass(frozen=True, slots=True)
class ReplyEnded(Event):
    """All that the reply says, without the calls that it makes, and why it ended."""

    text: str
    reason: ReplyReason


@dataclass(frozen=True, slots=True)
class Answer(Event):
    """The answer, and who found it (None: the finisher, or the reply)."""

    text: str
    worker: str | None


@dataclass(frozen=True, slots=True)
class RunEnded(Event):
    """The last event. Everything the run held is free again."""

    reason: Reason
    answer: str | None
    timings: Timings
    usage: Usage
