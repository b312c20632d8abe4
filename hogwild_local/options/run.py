"""What can be chosen of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date as Date
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from ..checks import flag, text, texts, whole
from ..errors import InvalidArgument
from .option import Options, a_choice, a_flag, a_whole, any_other
from .sampling import SamplingParams
from .worker import Worker, as_worker

if TYPE_CHECKING:
    from ..workers.layouts import Layout  # a user may bring one: its class is all that is known of it here

WorkEnds: TypeAlias = Literal["answer", "first", "majority", "all"]
LayoutName: TypeAlias = Literal["combined", "interleaved", "contiguous"]
AnswerAt: TypeAlias = Literal["token", "step"]

MOST_LOGPROBS = 20
SEEDS = (-(2**63), 2**64 - 1)


@dataclass(frozen=True, kw_only=True)
class RunOptions(Options):
    """How a run goes: who writes, what they see of each other, when it ends. Raises InvalidArgument, naming the
    option.

    workers: how many, or each as a Worker or by its name. sampling: of the workers who have none of their own, and of
    the reply; where none is given, the model's.

    As OpenAI has them, of the reply (docs/forms.md): response_format, a dict of type "text", "json_object",
    "json_schema" or "grammar"; tools and tool_choice, what it may call, or must; parallel_tool_calls, whether it may
    call several.
    """

    workers: int | Sequence[str | Worker] = field(default=2, metadata=any_other("How many workers think together."))
    layout: LayoutName | Layout | type[Layout] = field(
        default="combined", metadata=any_other("What workers see of each other.", LayoutName)
    )
    max_passes: int | None = field(
        default=None,
        metadata=a_whole(
            1,
            "Budget of forward passes after the prompt; each gives every worker a token. Without it the budget is what "
            "the cache has room for beside prompt and reply, divided by the workers.",
        ),
    )
    seed: int | None = field(
        default=None, metadata=a_whole(SEEDS[0], "A number that repeats a run. Without it each is different.", SEEDS[1])
    )
    sampling: SamplingParams | None = None
    stop: str | Sequence[str] = field(default=(), metadata=any_other("A text that ends the worker who writes it."))
    ends: WorkEnds = field(
        default="answer",
        metadata=a_choice(
            WorkEnds,
            "What ends the work before budget and room do: the first answer; or the end of the thoughts of the first "
            "worker, of most or of all, which counts as a vote that the work is done.",
        ),
    )
    reply: bool = field(
        default=True,
        metadata=a_flag(
            "Let one voice write a reply in prose when the work has ended, where the prompts have words for it."
        ),
    )
    reply_tokens: int = field(default=1024, metadata=a_whole(1, "Most tokens of the reply."))
    finisher: bool = field(
        default=True,
        metadata=a_flag("Where no reply follows, ask for the answer when budget or room have ended without one."),
    )
    finisher_tokens: int = field(default=16, metadata=a_whole(1, "Most tokens of the answer that is asked for."))
    redundancy_every: int = field(
        default=1024,
        metadata=a_whole(
            0,
            "Tokens, of all workers together, between two questions whether work is done twice; 0 asks never.",
        ),
    )
    thinking: bool = field(default=True, metadata=a_flag("Let the workers think first, where the model knows how to."))
    reasoning_effort: str | None = field(
        default=None,
        metadata=any_other("How much to think, where the chat template asks for it, in a word of its own: low, high."),
    )
    answer_at: AnswerAt = field(
        default="token",
        metadata=a_choice(AnswerAt, "When an answer counts: with the token that closes it, or at its step's end."),
    )
    cache_prompt: bool = field(
        default=True,
        metadata=a_flag(
            "Keep the prompt's keys and values as long as there is room: a later run computes only what is new."
        ),
    )
    eos_ends_run: bool = field(default=False, metadata=a_flag("Let the end of one worker's text end the run."))
    response_format: Mapping[str, Any] | None = None
    tools: Sequence[Mapping[str, Any]] | None = None
    tool_choice: Literal["none", "auto", "required"] | Mapping[str, Any] = "auto"
    parallel_tool_calls: bool = True
    logprobs: int | None = field(
        default=None,
        metadata=a_whole(
            0,
            "Tell of each token how likely it was to the model, before any sampler, and of so many that were likelier "
            "or as likely as any other.",
            MOST_LOGPROBS,
        ),
    )
    date: str | Date | None = field(
        default=None, metadata=any_other("The day that a chat template may name, as YYYY-MM-DD. Without it today.")
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        flag(self.parallel_tool_calls, "parallel_tool_calls")
        if self.reasoning_effort is not None:
            text(self.reasoning_effort, "reasoning_effort")
        object.__setattr__(self, "workers", _checked_workers(self.workers))
        object.__setattr__(self, "stop", texts(self.stop, "stop"))
        if self.sampling is not None and not isinstance(self.sampling, SamplingParams):
            raise InvalidArgument(
                f"sampling must be SamplingParams, not {self.sampling!r}; those of one worker are Worker's"
            )


def _checked_workers(workers: object) -> int | tuple[Worker, ...]:
    if isinstance(workers, str | bytes | Worker):
        raise InvalidArgument(f"workers must be a number or a list of names, not {workers!r}")
    if not isinstance(workers, Sequence):
        return whole(workers, "workers", 1)
    if not workers:
        raise InvalidArgument("workers must be a number or a list of names, not an empty list")
    made = tuple(map(as_worker, workers))
    seen: set[str] = set()
    for worker in made:
        if worker.name in seen:
            raise InvalidArgument(f"workers: the name {worker.name!r} is given twice")
        seen.add(worker.name)
    return made
