"""`hogwild bench`: milliseconds a pass and tokens a second, ours against llama.cpp's own parallel decoding.

Method. Both run in this process, on the same weights, with the same threads and cache types. A random prompt of
`context` tokens is prefilled into each, chunk by chunk in turn (timed: prefill). Then, for every number of workers,
each worker has written WARM_TOKENS tokens, and passes of one token a worker are timed, ours and llama.cpp's in turn,
so that a change of the machine's speed meets both. After `passes` passes the workers' tokens are dropped, and it
starts again. Ours is the combined layout: every worker sees the prompt, the other workers' tokens and its own;
llama.cpp's sequences see the prompt and their own. llama.cpp runs with flash attention and without, in turn too, and
ours is compared with the faster one: on CPUs it decodes long contexts much faster without. Sampling is outside the
timed window, logits are inside. The first two passes of each round are not counted. Figures are medians; spread is the
distance of the quartiles as a part of the median.
"""

from __future__ import annotations

import platform
import random
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ..engine.cache import SharedCache
from ..engine.model import Model
from ..errors import OutOfMemory
from .baseline import LlamaBaseline
from .bench_plan import UNCOUNTED_PASSES, Plan
from .machine import Costs, Machine, Work, measure_machine

WARM_TOKENS = 8


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds of one thing, measured several times."""

    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    @property
    def spread(self) -> float:
        """Distance of the quartiles, as a part of the median; 0 for a single measurement."""
        if len(self.seconds) < 2:
            return 0.0
        low, _, high = statistics.quantiles(self.seconds, n=4)
        return (high - low) / self.median


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table. kind: "prefill" (workers is 0) or "decode"."""

    kind: str
    context: int
    workers: int
    n_tokens: int  # of the timed thing
    ours: Timing
    llamas: Mapping[str, Timing]  # by flash attention, "on" and "off"
    bound: float | None  # seconds that this machine allows (cli/machine.py); None: weights lie elsewhere

    @property
    def flash_attention(self) -> str:
        """With which llama.cpp was faster."""
        return min(self.llamas, key=lambda flash: self.llamas[flash].median)

    @property
    def llama(self) -> Timing:
        return self.llamas[self.flash_attention]

    @property
    def reached(self) -> float | None:
        """The bound as a part of our time."""
        return None if self.bound is None else self.bound / self.ours.median

    @property
    def ratio(self) -> float:
        """Our speed as a multiple of llama.cpp's."""
        return self.llama.median / self.ours.median

    def to_dict(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "context": self.context,
            "workers": self.workers,
            "ms": {
                "ours": 1e3 * self.ours.median,
                "llama.cpp": 1e3 * self.llama.median,
                **{f"llama.cpp, flash attention {flash}": 1e3 * of.median for flash, of in self.llamas.items()},
                "bound": None if self.bound is None else 1e3 * self.bound,
            },
            "flash_attention": self.flash_attention,
            "reached": self.reached,
            "spread": {"ours": self.ours.spread, "llama.cpp": self.llama.spread},
            "tokens_per_second": {
                "ours": self.n_tokens / self.ours.median,
                "llama.cpp": self.n_tokens / self.llama.median,
            },
            "ratio": self.ratio,
        }


def machine_line(model: Model) -> dict[str, Any]:
    """What the figures depend on."""
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                cpu = line.split(":", 1)[1].strip()
                break
    return {
        "cpu": cpu,
        "threads": model.n_threads,
        "devices": [str(device) for device in model.devices],
        "model": model.description,
        "system": f"{platform.system()} {platform.machine()}",
        "hogwild-local": version("hogwild-local"),
        "llama-cpp-python": version("llama-cpp-python"),
    }


def measure(model: Model, plan: Plan, log: Callable[[str], object] = lambda text: None) -> Iterator[Row]:
    """Yields a row for each measurement, as soon as it is there."""
    log("the machine")
    machine = measure_machine(model.n_threads) if all(device.name == "CPU" for device in model.devices) else None
    for context in plan.contexts:
        with ExitStack() as stack:
            bench = _Bench(model, plan, context, machine, stack)
            log(f"prefill of {context} tokens")
            yield bench.prefill()
            for n_workers in plan.workers:
                log(f"{n_workers} workers at {context} tokens")
                yield bench.decode(n_workers)


class _Bench:
    """Our cache and llama.cpp's contexts, for one length of the prompt."""

    def __init__(self, model: Model, plan: Plan, context: int, machine: Machine | None, stack: ExitStack) -> None:
        n_most = max(plan.workers)
        n_ctx = context + n_most * (WARM_TOKENS + plan.passes + 1) + 64
        types = (plan.type_k, plan.type_v, plan.n_batch)
        self.plan, self.context, self.machine, self.n_vocab = plan, context, machine, model.n_vocab
        self.rng = random.Random(plan.seed)
        self.tokens = [self.rng.randrange(self.n_vocab) for _ in range(context)]
        self.cache = stack.enter_context(SharedCache(model, n_ctx, **plan.of_cache()))
        self.block = self.cache.block("prompt", anchored=True)
        self.costs = Costs.of(self.cache, model.metadata)
        # llama.cpp's sequences cannot share a prompt that is longer than what its windows hold: then they hold all.
        baseline = partial(LlamaBaseline, model, n_ctx, n_most, *types, swa_full=n_most > 1)
        self.llamas = {"on": stack.enter_context(baseline())}
        with suppress(OutOfMemory):  # it makes none with quantized values
            self.llamas["off"] = stack.enter_context(baseline(flash_attention=False))

    def prefill(self) -> Row:
        # Short prompts are repeated, to fill about as much time as a long one takes. The first, short one is not
        # counted.
        n = len(self.tokens)
        self._prefill_in_turn(self.tokens[: self.cache.n_batch])
        times = [self._prefill_in_turn(self.tokens) for _ in range(max(1, min(5, 2048 // n)))]
        work = self.costs.prefill(n, self.cache.n_batch)
        return self._row("prefill", 0, n, times, work)

    def _prefill_in_turn(self, tokens: list[int]) -> dict[str, float]:
        """Seconds of ours ("") and of llama.cpp's, which take turns chunk by chunk."""
        self.block.clear()
        seconds = dict.fromkeys(["", *self.llamas], 0.0)
        for llama in self.llamas.values():
            llama.clear()
        for done in range(0, len(tokens), self.cache.n_batch):
            chunk = tokens[done : done + self.cache.n_batch]
            seconds[""] += seconds_of(partial(self.cache.decode, [([self.block], chunk)]))
            for flash, llama in self.llamas.items():
                seconds[flash] += seconds_of(partial(llama.feed, chunk, done))
        for llama in self.llamas.values():
            llama.keep_prompt()
        return seconds

    def decode(self, n_workers: int) -> Row:
        blocks = [self.cache.block(f"worker {i}") for i in range(n_workers)]
        views = [[self.block, *(other for other in blocks if other is not own), own] for own in blocks]
        times = []
        for _ in range(self.plan.rounds):
            for block in blocks:
                block.clear()
            for llama in self.llamas.values():
                llama.share(self.context, n_workers)
            for position in range(WARM_TOKENS + self.plan.passes):
                tokens = [self.rng.randrange(self.n_vocab) for _ in blocks]
                feeds = [(view, [token]) for view, token in zip(views, tokens, strict=True)]
                seconds = {"": seconds_of(partial(self.cache.decode, feeds))}
                for flash, llama in self.llamas.items():
                    seconds[flash] = seconds_of(partial(llama.step, self.context + position, tokens))
                if position >= WARM_TOKENS + UNCOUNTED_PASSES:
                    times.append(seconds)
        for block in blocks:
            block.free()
        n_cells = self.context + n_workers * (WARM_TOKENS + self.plan.passes // 2)  # in the middle of a round
        return self._row("decode", n_workers, n_workers, times, self.costs.decode(n_workers, n_cells, n_cells))

    def _row(self, kind: str, workers: int, n_tokens: int, times: Sequence[Mapping[str, float]], work: Work) -> Row:
        of = {name: Timing(tuple(seconds[name] for seconds in times)) for name in times[0]}
        bound = None if self.machine is None else self.machine.bound(work)
        return Row(kind, self.context, workers, n_tokens, of.pop(""), of, bound)


def seconds_of(call: Callable[[], object]) -> float:
    begin = time.perf_counter()
    call()
    return time.perf_counter() - begin


def report(machine: dict[str, Any], plan: Plan, rows: Sequence[Row]) -> dict[str, Any]:
    """All of it as JSON."""
    return {"machine": machine, "plan": asdict(plan), "rows": [row.to_dict() for row in rows]}
