"""How one worker samples its tokens. Plain data: importable without the compiled engine."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from .errors import InvalidArgument


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """The settings of one sampler; names and defaults are llama.cpp's.

    temperature <= 0 is greedy; top_k <= 0, top_p >= 1 and min_p <= 0 switch those filters off. logit_bias
    maps a token to what is added to its logit (-inf forbids it). seed None: the run derives one for each
    worker. Raises InvalidArgument, which names the field.
    """

    temperature: float = 0.8
    top_k: int = 40
    top_p: float = 0.95
    min_p: float = 0.05
    repeat_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    penalty_last_n: int = 64
    seed: int | None = None
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    grammar: str | None = None

    def __post_init__(self) -> None:
        for name in (
            "temperature",
            "top_p",
            "min_p",
            "repeat_penalty",
            "presence_penalty",
            "frequency_penalty",
        ):
            if not _is_number(getattr(self, name)) or not math.isfinite(getattr(self, name)):
                raise InvalidArgument(f"{name} must be a finite number, not {getattr(self, name)!r}")
        if self.repeat_penalty <= 0:
            raise InvalidArgument(f"repeat_penalty must be above 0, not {self.repeat_penalty!r}")
        for name in ("top_k", "penalty_last_n"):
            if not isinstance(getattr(self, name), int):
                raise InvalidArgument(f"{name} must be a whole number, not {getattr(self, name)!r}")
        # 2**32 - 1 is what llama.cpp takes for "random".
        if self.seed is not None and not (isinstance(self.seed, int) and 0 <= self.seed < 2**32 - 1):
            raise InvalidArgument(f"seed must be None or a whole number in 0..2**32-2, not {self.seed!r}")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
