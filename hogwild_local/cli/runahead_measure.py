"""`hogwild runahead bench`: how long it takes until the first token of a prompt can be chosen, by several ranks and by
what they compete with.

Method. One random prompt is prefilled in turn, in each round by all of these, and in every other round the other way
round: by llama.cpp and by our engine in one process with all cores of this machine; by the last rank alone; by all
ranks with keys and values gathered in each layer (TSP: even chunks); by all ranks running ahead, with even chunks and
with the partition that they use themselves. A first round is not counted. Who does not compute sleeps. The time is that
of the call, from the tokens to the logits after the last one. Figures are medians; spread is the distance of the
quartiles as a part of the median. Bytes are those of the messages with keys and values, counted when they are sent.
A rank is idle from the beginning of the first rank's pass to the end of the last one's, where it computes nothing.
"""

from __future__ import annotations

import contextlib
import random
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Self, cast

from ..engine.block import CacheBlock
from ..engine.cache import SharedCache
from ..engine.model import Model
from ..engine.threads import default_threads
from ..runahead.partition import Partition, even
from ..runahead.ranked import RankedCache, started
from ..runahead.routes import Method
from ..runahead.transport import PassTrace, as_rows
from .baseline import LlamaBaseline
from .measure import Timing, seconds_of
from .runahead_plan import Plan, Wire

ALONE, GATHERED, EVEN, CUT = "last rank alone", "all-gather (TSP)", "run-ahead, even", "run-ahead"
SPARE_CELLS = 16
Took = tuple[float, Sequence[PassTrace]]


@dataclass
class Row:
    """One way to prefill. wire: None where ranks send nothing; traces: what ranks did in each round."""

    name: str
    wire: Wire | None
    run: Callable[[int], Took]
    """Prefills the prompt in a round: seconds, and what ranks did."""
    seconds: list[float] = field(default_factory=list)
    traces: list[Sequence[PassTrace]] = field(default_factory=list)

    @property
    def timing(self) -> Timing:
        return Timing(tuple(self.seconds))

    @property
    def usual(self) -> Sequence[PassTrace]:
        """What ranks did in the round whose time is nearest to the median."""
        nearest = min(range(len(self.seconds)), key=lambda i: abs(self.seconds[i] - self.timing.median))
        return self.traces[nearest]

    @property
    def idle(self) -> list[float]:
        """Seconds of each rank, medians."""
        return [statistics.median(of_rank) for of_rank in zip(*map(idle_s, self.traces), strict=True)]

    def to_dict(self) -> dict[str, Any]:
        return {
            "way": self.name,
            "link": None if self.wire is None else self.wire._asdict(),
            "ttft": {"median": self.timing.median, "spread": self.timing.spread, "seconds": self.seconds},
            "partition": [trace.n_tokens for trace in self.usual],
            "sent_bytes": [trace.n_sent for trace in self.usual],
            "idle_seconds": self.idle,
            "ranks": [as_rows(trace) for trace in self.usual],
        }


def is_even(traces: Sequence[PassTrace]) -> bool:
    chunks = [trace.n_tokens for trace in traces]
    return max(chunks, default=0) - min(chunks, default=0) <= 1


def idle_s(traces: Sequence[PassTrace]) -> list[float]:
    """Seconds in which each rank waits, has not begun, or has ended, of those that the prompt takes."""
    begin_s = min((trace.began_s for trace in traces), default=0.0)
    end_s = max((trace.ended_s for trace in traces), default=0.0)
    return [end_s - begin_s - (trace.ended_s - trace.began_s - trace.waited_s) for trace in traces]


class Bench:
    """The processes to measure, and a row for each way to prefill. options: Model's; hosts: see started()."""

    def __init__(self, path: Path, plan: Plan, options: Mapping[str, Any], hosts: Sequence[str] = ()) -> None:
        self.plan, self.n_threads = plan, default_threads(path)
        n_here = 1 if hosts else plan.n_ranks
        self.n_threads_a_rank = options.get("n_threads") or max(1, self.n_threads // n_here)
        sizes = (plan.context + SPARE_CELLS, plan.type_k, plan.type_v, plan.n_batch)
        with ExitStack() as stack:
            self.model = stack.enter_context(Model(path, **{**options, "n_threads": self.n_threads}))
            self._llama = stack.enter_context(LlamaBaseline(self.model, sizes[0], 1, *sizes[1:]))
            self._cache = stack.enter_context(SharedCache(self.model, sizes[0], **plan.of_cache()))
            self._ranks = self._started(path, {**options, "n_threads": self.n_threads_a_rank}, hosts, stack)
            self._stack = stack.pop_all()
        rng = random.Random(plan.seed)
        self._tokens = [rng.randrange(self.model.n_vocab) for _ in range(plan.context)]
        self.rows = [*self._of_one_process(), *(row for wire in plan.wires() for row in self._of_ranks(wire))]

    def _started(self, path: Path, options: dict[str, Any], hosts: Sequence[str], stack: ExitStack) -> RankedCache:
        engine, plan = started(self.plan.n_ranks, hosts), self.plan
        model = stack.enter_context(contextlib.closing(engine.model(path, **options)))
        cache = engine.cache(model, n_ctx=plan.context + SPARE_CELLS, **plan.of_cache())
        return stack.enter_context(cast(RankedCache, cache))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._stack.close()

    def measure(self, log: Callable[[str], object]) -> None:
        """All rounds, of which the one with number 0 does not count. Where the ranks find even chunks best, theirs are
        no way of their own."""
        for n_round in range(self.plan.rounds + 1):
            for row in self.rows.copy() if n_round % 2 else self.rows[::-1]:
                seconds, traces = row.run(n_round)
                if n_round > 0:
                    row.seconds.append(seconds)
                    row.traces.append(traces)
                elif row.name == CUT and is_even(traces):
                    self.rows.remove(row)
                wire = "" if row.wire is None else f", link {row.wire}"
                log(f"round {n_round} of {self.plan.rounds}: {row.name}{wire}: {seconds:.2f} s")

    def _of_one_process(self) -> list[Row]:
        return [
            Row(f"llama.cpp, {self.n_threads} threads", None, self._by_llama),
            Row(f"one process, {self.n_threads} threads", None, partial(self._in_parts, self._cache)),
            Row(ALONE, None, self._alone),
        ]

    def _of_ranks(self, wire: Wire) -> list[Row]:
        equal = even(self.plan.context, self.plan.n_ranks)
        ways: list[tuple[str, Method, Partition]] = [
            (GATHERED, "all-gather", ()),
            (EVEN, "runahead", equal),
            (CUT, "runahead", self.plan.partition),
        ]
        return [Row(name, wire, partial(self._together, wire, method, cut)) for name, method, cut in ways]

    def _by_llama(self, n_round: int) -> Took:
        return seconds_of(partial(self._llama.prefill, self._tokens)), ()

    def _alone(self, n_round: int) -> Took:
        self._ranks.method("alone")
        return self._in_parts(self._ranks, n_round)

    def _in_parts(self, cache: SharedCache, n_round: int) -> Took:
        """As a process feeds a prompt alone: ranks get it whole, for they cut it."""
        seconds, n = 0.0, self.plan.n_batch
        with freed(cache.block()) as block:
            for begin in range(0, len(self._tokens), n):
                seconds += seconds_of(partial(cache.decode, [([block], self._tokens[begin : begin + n])]))
        return seconds, ()

    def _together(self, wire: Wire, method: Method, partition: Partition, n_round: int) -> Took:
        """The noise is another one in each round, and the same for all ways of a round."""
        self._ranks.limit_links(wire.limits(self.plan.seed + n_round))
        self._ranks.method(method)
        self._ranks.cut_as(partition or None)
        with freed(self._ranks.block()) as block:
            seconds = seconds_of(partial(self._ranks.decode, [([block], self._tokens)]))
        return seconds, self._ranks.ranks()


@contextlib.contextmanager
def freed(block: CacheBlock) -> Iterator[CacheBlock]:
    try:
        yield block
    finally:
        block.free()


def report(machine: dict[str, Any], plan: Plan, rows: Sequence[Row]) -> dict[str, Any]:
    """All of it as JSON."""
    return {"machine": machine, "plan": asdict(plan), "rows": [row.to_dict() for row in rows]}
