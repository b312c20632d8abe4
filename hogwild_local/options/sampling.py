"""What can be chosen of a sampler."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ..checks import INT32_MAX, text
from ..errors import InvalidArgument
from .option import Options, a_number, a_whole

MOST_SEED = 2**32 - 2  # of a sampler: the next number means "random" to llama.cpp
MOST_LAST_N = 2**20  # a sampler allocates room for so many tokens


@dataclass(frozen=True)
class SamplingParams(Options):
    """The settings of one sampler; names and defaults are llama.cpp's.

    temperature <= 0 is greedy; top_k <= 0, top_p >= 1 and min_p <= 0 switch those filters off. logit_bias
    maps a token to what is added to its logit (-inf forbids it). seed None: the run derives one for each
    worker. Raises InvalidArgument, which names the field.
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

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.repeat_penalty <= 0:
            raise InvalidArgument(f"repeat_penalty must be above 0, not {self.repeat_penalty!r}")
        if not isinstance(self.logit_bias, Mapping):
            raise InvalidArgument(f"logit_bias must map tokens to numbers, not {self.logit_bias!r}")
        if self.grammar is not None:
            text(self.grammar, "grammar")
