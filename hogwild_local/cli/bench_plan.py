"""What `hogwild bench` measures. It needs nothing that is compiled, so that --help can show its defaults."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..checks import whole
from ..options import OF_CACHE, AttentionForm, CacheType, EngineOptions

UNCOUNTED_PASSES = 2
"""The first ones of each round."""


@dataclass(frozen=True, kw_only=True)
class CachePlan:
    """The cache to measure with: all options of one."""

    n_batch: int = EngineOptions.n_batch
    type_k: CacheType = EngineOptions.type_k
    type_v: CacheType = EngineOptions.type_v
    attention: AttentionForm = EngineOptions.attention
    n_windows: int | None = EngineOptions.n_windows

    def of_cache(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in OF_CACHE}


@dataclass(frozen=True)
class Plan(CachePlan):
    """What to measure. Raises InvalidArgument."""

    workers: tuple[int, ...] = (1, 2, 4, 8)
    contexts: tuple[int, ...] = (256, 4096)
    passes: int = 10
    rounds: int = 4
    seed: int = 1

    def __post_init__(self) -> None:
        for n in self.workers:
            whole(n, "workers", 1, 64)
        for n in self.contexts:
            whole(n, "context", 1, 2**24)
        whole(self.passes, "passes", UNCOUNTED_PASSES + 1, 10_000)
        whole(self.rounds, "rounds", 1, 10_000)
