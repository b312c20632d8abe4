"""What can be chosen of a sampler."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ..checks import INT32_MAX, text
from ..errors import InvalidArgument
from .option import Options, a_number, a_whole, any_other

MOST_SEED = 2**32 - 2  # of a sampler: the next number means "random" to llama.cpp
MOST_LAST_N = 2**20  # a sampler allocates room for so many tokens


SAMPLERS = ("penalties", "top_k", "top_p", "min_p", "temperature")
"""The steps of a sampler, in llama.cpp's order."""

_ALIASES = {"temp": "temperature", "nucleus": "top_p", "topk": "top_k", "topp": "top_p", "minp": "min_p"}


def sampler_named(name: str) -> str:
    """A step's name as it stands in SAMPLERS, if it is one: llama.cpp takes these spellings too."""
    plain = name.strip().lower().replace("-", "_")
    return _ALIASES.get(plain, plain)


@dataclass(frozen=True)
class SamplingParams(Options):
    """The settings of one sampler; names and defaults are llama.cpp's.

    temperature <= 0 is greedy; top_k <= 0, top_p >= 1 and min_p <= 0 switch those filters off. logit_bias
    maps a token to what is added to its logit (-inf forbids it). seed None: the run derives one for each
    worker. grammar: GBNF; with grammar_triggers it holds only what is written from the first of these texts on, that
    text included. sampler_order: a list of names, or one text with ; between them, as llama.cpp's --samplers; a step
    that it leaves out is off. Raises InvalidArgument, which names the field.
    """

    temperature: float = field(
        default=0.8, metadata=a_number("How far the choice strays from the likeliest token; 0 always takes that one.")
    )
    top_k: int = field(
        default=40,
        metadata=a_whole(-INT32_MAX, "Only the so many likeliest tokens are left to choose from; 0 leaves all."),
    )
    top_p: float = field(
        default=0.95,
        metadata=a_number("Only the likeliest tokens with so much probability together are left; 1 leaves all."),
    )
    min_p: float = field(
        default=0.05,
        metadata=a_number("Only tokens with so much of the likeliest one's probability are left; 0 leaves all."),
    )
    repeat_penalty: float = field(
        default=1.0, metadata=a_number("How much tokens that were written lately are made less likely; 1 does not.")
    )
    presence_penalty: float = field(
        default=0.0, metadata=a_number("What is taken from the logit of a token that was written lately.")
    )
    frequency_penalty: float = field(
        default=0.0, metadata=a_number("What is taken from the logit of a token each time it was written lately.")
    )
    penalty_last_n: int = field(
        default=64, metadata=a_whole(0, "So many tokens are lately, for the three penalties.", MOST_LAST_N)
    )
    seed: int | None = field(default=None, metadata=a_whole(0, "Where the sampler's random numbers begin.", MOST_SEED))
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    grammar: str | None = None
    grammar_triggers: Sequence[str] = ()
    sampler_order: str | Sequence[str] = field(
        default=SAMPLERS,
        metadata=any_other(
            "In which order tokens are sorted out; what is not named is left out. Cards of models mostly mean the "
            "temperature before top_p: penalties;temperature;top_k;top_p;min_p."
        ),
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.repeat_penalty <= 0:
            raise InvalidArgument(f"repeat_penalty must be above 0, not {self.repeat_penalty!r}")
        if not isinstance(self.logit_bias, Mapping):
            raise InvalidArgument(f"logit_bias must map tokens to numbers, not {self.logit_bias!r}")
        if self.grammar is not None:
            text(self.grammar, "grammar")
        for trigger in self.grammar_triggers:
            if not isinstance(trigger, str) or not text(trigger, "grammar_triggers"):
                raise InvalidArgument(f"grammar_triggers must be texts that are not empty, not {trigger!r}")
        object.__setattr__(self, "sampler_order", _checked_order(self.sampler_order))


def _checked_order(order: object) -> tuple[str, ...]:
    names = [name for name in order.split(";") if name.strip()] if isinstance(order, str) else order
    if isinstance(names, bytes) or not isinstance(names, Sequence) or not all(isinstance(name, str) for name in names):
        raise InvalidArgument(f"sampler_order must be a list of names of {', '.join(SAMPLERS)}, not {order!r}")
    checked = tuple(map(sampler_named, names))
    for name in checked:
        if name not in SAMPLERS:
            raise InvalidArgument(f"sampler_order: there is no {name!r} (there are {', '.join(SAMPLERS)})")
        if checked.count(name) > 1:
            raise InvalidArgument(f"sampler_order: {name!r} is there twice")
    return checked
