"""The best partitions by measurement (KVR-S): the search of search.py, of the time to the first token."""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from ..checks import whole
from ..errors import InvalidArgument
from ..options import MOST_BATCH
from .balance import planned
from .costs import Costs
from .kept import Table
from .partition import Partition, even
from .ranked import RankedCache
from .search import search, strides_of

FINALISTS = 3
CLEARLY = 1.05
"""A partition that takes so much longer than the best in its first round gets no other one."""


@dataclass(frozen=True)
class TunePlan:
    """contexts: lengths of prompts, in tokens; rounds: of a partition, whose median counts; finest: a 128th of a prompt
    is what a rank gives to another one at last. Raises InvalidArgument."""

    contexts: tuple[int, ...] = (1024, 2048, 4096)
    rounds: int = 3
    finest: int = 128
    seed: int = 1

    def __post_init__(self) -> None:
        if not self.contexts:
            raise InvalidArgument("context: no length is given")
        for n in self.contexts:  # a longer prompt goes in several passes
            whole(n, "context", 64, MOST_BATCH)
        whole(self.rounds, "rounds", 1, 1000)
        whole(self.finest, "finest", 16, 4096)


class Measured(NamedTuple):
    """Seconds to the first token, of each new round; best_s: the least median so far."""

    partition: Partition
    rounds: list[float]
    best_s: float


class Tuned(NamedTuple):
    """What is in the table for a length now."""

    n_tokens: int
    even_s: float
    partition: Partition
    seconds: float
    n_measured: int


class Tuner:
    """Fills a table. Partitions that are in it are not measured again: so one that was interrupted goes on."""

    def __init__(
        self,
        cache: RankedCache,
        n_vocab: int,
        table: Table,
        costs: Costs | None,
        plan: TunePlan,
        tell: Callable[[Measured], object] = lambda measured: None,
    ) -> None:
        """costs: where the search begins; None: with even chunks."""
        self._cache, self._table, self._costs, self._plan, self._tell = cache, table, costs, plan, tell
        self._n_ranks = len(cache.group()["ranks"])
        rng = random.Random(plan.seed)
        self._tokens = [rng.randrange(n_vocab) for _ in range(max(plan.contexts))]
        self._is_warm = False

    def tune(self, n_tokens: int) -> Tuned:
        """One of the plan's lengths. Raises what decode() raises, and RunaheadError where the table cannot be
        written. What was measured is kept."""
        equal = even(n_tokens, self._n_ranks)
        start = equal if self._costs is None else planned(self._costs, n_tokens)
        try:
            search(self._measure, start, strides_of(n_tokens, self._plan.finest))
            self._measure(equal, float("inf"))
            self._compare(n_tokens)
        finally:
            self._cache.cut_as(None)
        ranking = self._table.ranking(n_tokens)
        even_s, best_s = (statistics.median(self._table.rounds(each)) for each in (equal, ranking[0]))
        return Tuned(n_tokens, even_s, ranking[0], best_s, len(ranking))

    def _measure(self, partition: Partition, best_s: float) -> float:
        if not self._table.rounds(partition):
            if not self._is_warm:
                self._is_warm = True
                self.seconds(partition)
            rounds = [self.seconds(partition)]
            while len(rounds) < self._plan.rounds and rounds[0] <= CLEARLY * best_s:
                rounds.append(self.seconds(partition))
            self._add(partition, rounds)
        # Rounds that came later count nothing here, so that the search goes the same way through what is known.
        rounds = self._table.rounds(partition)
        return statistics.median(rounds[: self._plan.rounds if rounds[0] <= CLEARLY * best_s else 1])

    def _compare(self, n_tokens: int) -> None:
        """The first ones get as many rounds again, in turn: the luckiest one of many need not be the best."""
        n_most = 2 * self._plan.rounds
        while short := [
            partition
            for partition in self._table.ranking(n_tokens)[:FINALISTS]
            if len(self._table.rounds(partition)) < n_most
        ]:
            for partition in short:
                self._add(partition, [self.seconds(partition)])

    def _add(self, partition: Partition, rounds: list[float]) -> None:
        self._table.add(partition, rounds)
        best = self._table.ranking(sum(partition))[0]
        self._tell(Measured(partition, rounds, statistics.median(self._table.rounds(best))))

    def seconds(self, partition: Partition) -> float:
        """From the call to the logits after the last token, with this partition."""
        self._cache.cut_as(partition)
        block = self._cache.block("prompt")
        try:
            begin_s = time.monotonic()
            self._cache.decode([([block], self._tokens[: sum(partition)])])
            return time.monotonic() - begin_s
        finally:
            block.free()
