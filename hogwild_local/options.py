"""What can be chosen: of an engine, of a run, of a worker's sampler.

Default, choices, range and help of every option stand here and nowhere else: Hogwild takes its keywords from these
classes (see takes()), and the command line makes its options from their fields. Plain data: importable without the
compiled engine.
"""

from __future__ import annotations

import functools
import inspect
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import date as Date
from typing import TYPE_CHECKING, Any, Concatenate, Literal, ParamSpec, TypeAlias, TypeVar, cast, get_args

from .checks import INT32_MAX, flag, number, one_of, text, whole
from .errors import InvalidArgument

if TYPE_CHECKING:
    from .workers.layouts import Layout  # a user may bring one: its class is all that is known of it here

FileName: TypeAlias = str | os.PathLike[str]
Lora: TypeAlias = FileName | tuple[FileName, float]
ControlVector: TypeAlias = FileName | tuple[FileName, float] | tuple[FileName, float, int, int]
Servers: TypeAlias = str | Sequence[str]
WorkEnds: TypeAlias = Literal["answer", "first", "majority", "all"]
LayoutName: TypeAlias = Literal["combined", "interleaved", "contiguous"]
CacheType: TypeAlias = Literal["f16", "f32", "bf16", "q8_0", "q5_0", "q5_1", "q4_0", "q4_1"]
AttentionForm: TypeAlias = Literal["auto", "fused", "ggml", "composed"]
SplitMode: TypeAlias = Literal["layer", "none"]
AnswerAt: TypeAlias = Literal["token", "step"]

MOST_THREADS = 512
MOST_BATCH = 8192
MOST_RANKS = 64
MOST_SEED = 2**32 - 2  # of a sampler: the next number means "random" to llama.cpp
MOST_LAST_N = 2**20  # a sampler allocates room for so many tokens
SEEDS = (-(2**63), 2**64 - 1)
USUAL_N_CTX = 8192
OF_CACHE = ("n_batch", "type_k", "type_v", "attention")
"""The options of an engine that are a cache's; the others are the model's."""

O = TypeVar("O")  # noqa: E741  options
P = ParamSpec("P")
R = TypeVar("R")
S = TypeVar("S")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Option:
    """What is known of a field beside its type and default: a sentence of help, and what it may be. A field whose
    default is None may be None."""

    help: str
    kind: Literal["whole", "number", "flag", "choice", "other"]
    least: int = 0
    most: int = INT32_MAX
    choices: tuple[str, ...] = ()

    def checked(self, value: object, name: str) -> object:
        """The value as it is kept. Raises InvalidArgument, which names it."""
        match self.kind:
            case "whole":
                return whole(value, name, self.least, self.most)
            case "number":
                return number(value, name)
            case "flag":
                return flag(value, name)
            case "choice":
                return one_of(value, name, self.choices)
            case "other":
                return value


class Options:
    """Base of the classes below: checks each field when an object is made."""

    def __post_init__(self) -> None:
        for name, option in options_of(type(self)).items():
            value = getattr(self, name)
            if value is not None or default_of(type(self), name) is not None:
                object.__setattr__(self, name, option.checked(value, name))


def options_of(kind: type[Options]) -> dict[str, Option]:
    """The options of a class, by name."""
    return {f.name: f.metadata["option"] for f in fields(kind) if "option" in f.metadata}  # type: ignore[arg-type]


def default_of(kind: type[Options], name: str) -> Any:
    """The default of one option."""
    return next(f.default for f in fields(kind) if f.name == name)  # type: ignore[arg-type]


def _whole(least: int, help: str, most: int = INT32_MAX) -> dict[str, Option]:
    return {"option": Option(help, "whole", least, most)}


def _number(help: str) -> dict[str, Option]:
    return {"option": Option(help, "number")}


def _flag(help: str) -> dict[str, Option]:
    return {"option": Option(help, "flag")}


def _choice(choices: object, help: str) -> dict[str, Option]:
    return {"option": Option(help, "choice", choices=get_args(choices))}


def _other(help: str, choices: object = None) -> dict[str, Option]:
    """Checked elsewhere; choices: what the command line offers of it."""
    return {"option": Option(help, "other", choices=get_args(choices))}


@dataclass(frozen=True, kw_only=True)
class EngineOptions(Options):
    """How a model is loaded, where it lies, and what its cache is like. Raises InvalidArgument, naming the option."""

    n_ctx: int | None = field(
        default=None,
        metadata=_whole(
            1,
            f"Tokens that the cache holds, those of all workers together. Without it {USUAL_N_CTX}, or as many as the "
            "model was trained for, if those are fewer.",
        ),
    )
    n_batch: int = field(
        default=512,
        metadata=_whole(1, "Most tokens of one forward pass; a longer prompt is fed in several.", MOST_BATCH),
    )
    n_gpu_layers: int | None = field(
        default=None,
        metadata=_whole(
            -1,
            "Layers that lie on GPUs or on servers, if there are any, the last ones first. -1, or none given, is all.",
        ),
    )
    n_threads: int | None = field(
        default=None,
        metadata=_whole(
            1,
            "Threads of the CPU, of each rank (--runahead). Without it as many as a pass of the model can use, at most "
            "one a core; while several ranks of a machine compute a prompt, their share of them.",
            MOST_THREADS,
        ),
    )
    type_k: CacheType = field(default="f16", metadata=_choice(CacheType, "Type in which the cache stores keys."))
    type_v: CacheType = field(default="f16", metadata=_choice(CacheType, "Type in which the cache stores values."))
    attention: AttentionForm = field(
        default="auto",
        metadata=_choice(
            AttentionForm,
            "Who computes attention: our kernel (fused), ggml's flash attention (ggml), or plain operations of ggml "
            "(composed); auto chooses for each layer.",
        ),
    )
    lora: Sequence[Lora] = field(
        default=(), metadata=_other("A LoRA adapter, a GGUF file, and how much of it is added.")
    )
    control_vectors: Sequence[ControlVector] = field(
        default=(), metadata=_other("A control vector, a GGUF file, and how much of it is added.")
    )
    rpc: Servers = field(
        default="",
        metadata=_other(
            "Servers (hogwild rpc-server) on other machines whose devices are used; ranks (--runahead) deal them out."
        ),
    )
    device: str | Sequence[str] = field(
        default="",
        metadata=_other(
            "GPUs of this machine that are used, by ggml's names (hogwild rpc-server --list-devices). Without it all. "
            "Ranks of one machine (--runahead) deal them out."
        ),
    )
    tensor_split: Sequence[float] = field(
        default=(),
        metadata=_other(
            "How much of the layers each device takes, in proportion. Without it as much as it has memory."
        ),
    )
    split_mode: SplitMode = field(
        default="layer",
        metadata=_choice(
            SplitMode, "Whether layers are spread over all devices (layer) or all lie on --main-gpu (none)."
        ),
    )
    main_gpu: int = field(
        default=0,
        metadata=_whole(0, "Number of the device that has all layers with split mode none; servers come first."),
    )
    isolate: bool | None = field(
        default=None,
        metadata=_flag(
            "Let model and cache live in a process of their own, whose end is an error here. With servers they do."
        ),
    )
    runahead: int = field(
        default=1,
        metadata=_whole(
            1,
            "Processes (ranks) that prefill a prompt together, each with the whole model: for several sockets, GPUs or "
            "machines. Needs an MPI, and the last rank has the workers.",
            MOST_RANKS,
        ),
    )
    hosts: Servers = field(
        default="", metadata=_other("Machines of all ranks but the last one, dealt out evenly, which ssh reaches.")
    )
    trust: bool = field(
        default=False,
        metadata=_flag("Load a file that nobody has tried yet without trying it first in a process of its own."),
    )


@dataclass(frozen=True)
class SamplingParams(Options):
    """The settings of one sampler; names and defaults are llama.cpp's.

    temperature <= 0 is greedy; top_k <= 0, top_p >= 1 and min_p <= 0 switch those filters off. logit_bias
    maps a token to what is added to its logit (-inf forbids it). seed None: the run derives one for each
    worker. Raises InvalidArgument, which names the field.
    """

    temperature: float = field(
        default=0.8, metadata=_number("How far the choice strays from the likeliest token; 0 always takes that one.")
    )
    top_k: int = field(
        default=40,
        metadata=_whole(-INT32_MAX, "Only the so many likeliest tokens are left to choose from; 0 leaves all."),
    )
    top_p: float = field(
        default=0.95,
        metadata=_number("Only the likeliest tokens with so much probability together are left; 1 leaves all."),
    )
    min_p: float = field(
        default=0.05,
        metadata=_number("Only tokens with so much of the likeliest one's probability are left; 0 leaves all."),
    )
    repeat_penalty: float = field(
        default=1.0, metadata=_number("How much tokens that were written lately are made less likely; 1 does not.")
    )
    presence_penalty: float = field(
        default=0.0, metadata=_number("What is taken from the logit of a token that was written lately.")
    )
    frequency_penalty: float = field(
        default=0.0, metadata=_number("What is taken from the logit of a token each time it was written lately.")
    )
    penalty_last_n: int = field(
        default=64, metadata=_whole(0, "So many tokens are lately, for the three penalties.", MOST_LAST_N)
    )
    seed: int | None = field(default=None, metadata=_whole(0, "Where the sampler's random numbers begin.", MOST_SEED))
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    grammar: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.repeat_penalty <= 0:
            raise InvalidArgument(f"repeat_penalty must be above 0, not {self.repeat_penalty!r}")
        if not isinstance(self.logit_bias, Mapping):
            raise InvalidArgument(f"logit_bias must map tokens to numbers, not {self.logit_bias!r}")
        if self.grammar is not None:
            text(self.grammar, "grammar")


@dataclass(frozen=True, kw_only=True)
class RunOptions(Options):
    """How a run goes: who writes, what they see of each other, when it ends. Raises InvalidArgument, naming the
    option.

    sampling: for all workers, or by name; where none is given, the model's. workers: how many, or their names.
    """

    workers: int | Sequence[str] = field(default=2, metadata=_other("How many workers think together."))
    layout: LayoutName | Layout | type[Layout] = field(
        default="combined", metadata=_other("What workers see of each other.", LayoutName)
    )
    max_passes: int = field(
        default=1024, metadata=_whole(1, "Budget of forward passes after the prompt; each gives every worker a token.")
    )
    seed: int | None = field(
        default=None, metadata=_whole(SEEDS[0], "A number that repeats a run. Without it each is different.", SEEDS[1])
    )
    sampling: SamplingParams | Mapping[str, SamplingParams] | None = None
    stop: str | Sequence[str] = field(default=(), metadata=_other("A text that ends the worker who writes it."))
    ends: WorkEnds = field(
        default="answer",
        metadata=_choice(
            WorkEnds,
            "What ends the work before budget and room do: the first answer; or the end of the thoughts of the first "
            "worker, of most or of all, which counts as a vote that the work is done.",
        ),
    )
    reply: bool = field(
        default=True,
        metadata=_flag(
            "Let one voice write a reply in prose when the work has ended, where the prompts have words for it."
        ),
    )
    reply_tokens: int = field(default=1024, metadata=_whole(1, "Most tokens of the reply."))
    finisher: bool = field(
        default=True,
        metadata=_flag("Where no reply follows, ask for the answer when budget or room have ended without one."),
    )
    finisher_tokens: int = field(default=16, metadata=_whole(1, "Most tokens of the answer that is asked for."))
    redundancy_every: int = field(
        default=1024,
        metadata=_whole(
            0,
            "Tokens, of all workers together, between two questions whether work is done twice; 0 asks never.",
        ),
    )
    thinking: bool = field(default=True, metadata=_flag("Let the workers think first, where the model knows how to."))
    answer_at: AnswerAt = field(
        default="token",
        metadata=_choice(AnswerAt, "When an answer counts: with the token that closes it, or at its step's end."),
    )
    cache_prompt: bool = field(
        default=True,
        metadata=_flag(
            "Keep the prompt's keys and values as long as there is room: a later run computes only what is new."
        ),
    )
    eos_ends_run: bool = field(default=False, metadata=_flag("Let the end of one worker's text end the run."))
    date: str | Date | None = field(
        default=None, metadata=_other("The day that a chat template may name, as YYYY-MM-DD. Without it today.")
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "workers", _checked_workers(self.workers))
        object.__setattr__(self, "stop", _checked_stops(self.stop))


def _checked_workers(workers: object) -> int | tuple[str, ...]:
    if isinstance(workers, str | bytes):
        raise InvalidArgument(f"workers must be a number or a list of names, not {workers!r}")
    if not isinstance(workers, Sequence):
        return whole(workers, "workers", 1)
    if not workers:
        raise InvalidArgument("workers must be a number or a list of names, not an empty list")
    seen: set[str] = set()
    for name in workers:
        if not isinstance(name, str) or not name.strip():
            raise InvalidArgument(f"workers: names must be non-empty strings, not {name!r}")
        text(name, f"workers: the name {name!r}")
        if name in seen:
            raise InvalidArgument(f"workers: the name {name!r} is given twice")
        seen.add(name)
    return tuple(workers)


def _checked_stops(stop: object) -> tuple[str, ...]:
    stops = (stop,) if isinstance(stop, str) else stop
    if isinstance(stops, bytes) or not isinstance(stops, Sequence):
        raise InvalidArgument(f"stop must be a text or a list of texts, not {stop!r}")
    for each in stops:
        if not isinstance(each, str) or not each:
            raise InvalidArgument(f"stop: the strings must not be empty, not {each!r}")
    return tuple(stops)


def takes(options: Callable[P, O]) -> Callable[[Callable[[S, T, O], R]], Callable[Concatenate[S, T, P], R]]:
    """Lets a method that takes (self, what, an object of options) be called with the options as keywords instead. Type
    checkers and help() see each of them, with its type and default, and the list is written once."""

    def decorate(method: Callable[[S, T, O], R]) -> Callable[Concatenate[S, T, P], R]:
        make: Callable[..., O] = options
        own = list(inspect.signature(method).parameters.values())[:2]
        signature = inspect.Signature([*own, *inspect.signature(options).parameters.values()])

        @functools.wraps(method)
        def call(*given: Any, **named: Any) -> R:
            bound = signature.bind(*given, **named)
            this, what = bound.args
            return method(this, what, make(**bound.kwargs))

        call.__signature__ = signature  # type: ignore[attr-defined]
        return cast("Callable[Concatenate[S, T, P], R]", call)

    return decorate
