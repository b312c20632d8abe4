"""What `hogwild runahead bench` measures. It needs nothing that is compiled, so that --help can show its defaults."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from ..checks import whole
from ..errors import InvalidArgument
from ..options import MOST_RANKS
from ..runahead.partition import Partition, checked
from ..runahead.slow_link import Limits
from .bench_plan import CachePlan


class Wire(NamedTuple):
    """What ranks are connected by. gbit_per_s: of each link and direction; 0: what there is. noise: see Limits."""

    gbit_per_s: float = 0.0
    latency_ms: float = 0.0
    noise: float = 0.0

    def limits(self, seed: int) -> Limits | None:
        if not self.gbit_per_s:
            return None
        return Limits(1e9 / 8 * self.gbit_per_s, self.latency_ms / 1e3, self.noise, seed)

    def __str__(self) -> str:
        if not self.gbit_per_s:
            return "as it is"
        latency = f", {self.latency_ms:g} ms" if self.latency_ms else ""
        return f"{self.gbit_per_s:g} Gbit/s{latency}" + (f", {self.noise:.0%} noise" if self.noise else "")


@dataclass(frozen=True)
class Plan(CachePlan):
    """What to measure. Raises InvalidArgument."""

    n_ranks: int
    context: int = 4096
    rounds: int = 3
    links: tuple[float, ...] = (0.0,)
    latency_ms: float = 0.0
    noise: float = 0.0
    partition: Partition = ()
    seed: int = 1

    def __post_init__(self) -> None:
        whole(self.n_ranks, "runahead", 2, MOST_RANKS)
        whole(self.context, "context", 16 * self.n_ranks, 2**24)
        whole(self.rounds, "rounds", 1, 1000)
        if not self.links or not all(math.isfinite(gbit) and gbit >= 0 for gbit in self.links):
            raise InvalidArgument("link-gbit: the rate of a link is a number above 0, or 0 for the link as it is")
        if not (math.isfinite(self.latency_ms) and self.latency_ms >= 0 and 0 <= self.noise < 1):
            raise InvalidArgument("latency-ms must be 0 or more, and noise a part of the rate, from 0 to less than 1")
        if (self.latency_ms or self.noise) and not any(self.links):
            raise InvalidArgument("latency-ms and noise are those of links with a limit: give one with link-gbit")
        if self.partition:
            checked(self.partition, self.context, self.n_ranks)

    def wires(self) -> Iterator[Wire]:
        """With noise each limited link is measured without and with it."""
        for gbit in self.links:
            latency_ms = self.latency_ms if gbit else 0.0
            yield Wire(gbit, latency_ms)
            if gbit and self.noise:
                yield Wire(gbit, latency_ms, self.noise)
