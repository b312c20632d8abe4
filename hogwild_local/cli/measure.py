"""`hogwild bench`: milliseconds a pass and tokens a second, ours against llama.cpp's own parallel decoding.

Method. Both run in this process, on the same weights, with the same threads and cache types. A random prompt of
`context` tokens is prefilled into each, chunk by chunk in turn (timed: prefill). Then, for every number of workers,
each worker has written WARM_TOKENS tokens, and passes of one token a worker are timed, ours and llama.cpp's in turn,
so that a change of the machine's speed meets both. After `passes` passes the workers' tokens are dropped, and it
starts again. Ours is the combined layout: every worker sees the prompt, the other workers' tokens and its own;
llama.cpp's sequences see the prompt and their own. Sampling is outside the timed window, logits are inside. The first
two passes of each round are not counted. Figures are medians; spread is the distance of the quartiles as a part of
the median.
"""

from __future__ import annotations

import platform
import random
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ..checks import whole
from ..engine.cache import CacheBlock, SharedCache
from ..engine.model import Model
from .baseline import LlamaBaseline

WARM_TOKENS = 8
UNCOUNTED_PASSES = 2


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
    llama: Timing

    @property
    def ratio(self) -> float:
        """Our speed as a multiple of llama.cpp's."""
        return self.llama.median / self.ours.median

    def to_dict(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "context": self.context,
            "workers": self.workers,
            "ms": {"ours": 1e3 * self.ours.median, "llama.cpp": 1e3 * self.llama.median},
            "spread": {"ours": self.ours.spread, "llama.cpp": self.llama.spread},
            "tokens_per_second": {
                "ours": self.n_tokens / self.ours.median,
                "llama.cpp": self.n_tokens / self.llama.median,
            },
            "ratio": self.ratio,
        }


@dataclass(frozen=True, slots=True)
class Plan:
    """What to measure. Raises InvalidArgument."""

    workers: tuple[int, ...] = (1, 2, 4, 8)
    contexts: tuple[int, ...] = (256, 4096)
    passes: int = 10
    rounds: int = 4
    n_batch: int = 512
    type_k: str = "f16"
    type_v: str = "f16"
    attention: str = "auto"
    seed: int = 1

    def __post_init__(self) -> None:
        for n in self.workers:
            whole(n, "workers", 1, 64)
        for n in self.contexts:
            whole(n, "context", 1, 2**24)
        whole(self.passes, "passes", UNCOUNTED_PASSES + 1, 10_000)
        whole(self.rounds, "rounds", 1, 10_000)


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
    for context in plan.contexts:
        yield from _measure_context(model, plan, context, log)


def _measure_context(model: Model, plan: Plan, context: int, log: Callable[[str], object]) -> Iterator[Row]:
    n_most = max(plan.workers)
    n_ctx = context + n_most * (WARM_TOKENS + plan.passes + 1) + 64
    rng = random.Random(plan.seed)
    prompt = [rng.randrange(model.n_vocab) for _ in range(context)]
    with (
        SharedCache(model, n_ctx, plan.type_k, plan.type_v, plan.n_batch, plan.attention) as cache,  # type: ignore[arg-type]
        LlamaBaseline(model, n_ctx, n_most, plan.type_k, plan.type_v, plan.n_batch) as llama,
    ):
        block = cache.block("prompt")
        log(f"prefill of {context} tokens")
        yield _measure_prefill(cache, llama, block, prompt)
        for n_workers in plan.workers:
            log(f"{n_workers} workers at {context} tokens")
            yield _measure_decode(plan, cache, llama, block, n_workers, rng, model.n_vocab)


def _measure_prefill(cache: SharedCache, llama: LlamaBaseline, block: CacheBlock, prompt: list[int]) -> Row:
    # Short prompts are repeated, to fill about as much time as a long one takes. The first, short one is not counted.
    n_repeats = max(1, min(5, 2048 // len(prompt)))
    _prefill_in_turn(cache, llama, block, prompt[: cache.n_batch])
    times = [_prefill_in_turn(cache, llama, block, prompt) for _ in range(n_repeats)]
    ours, theirs = zip(*times, strict=True)
    return Row("prefill", len(prompt), 0, len(prompt), Timing(ours), Timing(theirs))


def _prefill_in_turn(
    cache: SharedCache, llama: LlamaBaseline, block: CacheBlock, prompt: list[int]
) -> tuple[float, float]:
    """Seconds of ours and of llama.cpp's, which take turns chunk by chunk."""
    block.clear()
    llama.clear()
    ours = theirs = 0.0
    for done in range(0, len(prompt), cache.n_batch):
        chunk = prompt[done : done + cache.n_batch]
        ours += seconds_of(partial(cache.decode, [([block], chunk)]))
        theirs += seconds_of(partial(llama.feed, chunk, done))
    return ours, theirs


def _measure_decode(
    plan: Plan,
    cache: SharedCache,
    llama: LlamaBaseline,
    prompt: CacheBlock,
    n_workers: int,
    rng: random.Random,
    n_vocab: int,
) -> Row:
    context = len(prompt)
    blocks = [cache.block(f"worker {i}") for i in range(n_workers)]
    views = [[prompt, *(other for other in blocks if other is not own), own] for own in blocks]
    ours, theirs = [], []
    for _ in range(plan.rounds):
        for block in blocks:
            block.clear()
        llama.share(context, n_workers)
        for position in range(WARM_TOKENS + plan.passes):
            tokens = [rng.randrange(n_vocab) for _ in blocks]
            feeds = [(view, [token]) for view, token in zip(views, tokens, strict=True)]
            our_time = seconds_of(partial(cache.decode, feeds))
            their_time = seconds_of(partial(llama.step, context + position, tokens))
            if position >= WARM_TOKENS + UNCOUNTED_PASSES:
                ours.append(our_time)
                theirs.append(their_time)
    for block in blocks:
        block.free()
    return Row("decode", context, n_workers, n_workers, Timing(tuple(ours)), Timing(tuple(theirs)))


def seconds_of(call: Callable[[], object]) -> float:
    begin = time.perf_counter()
    call()
    return time.perf_counter() - begin


def report(machine: dict[str, Any], plan: Plan, rows: Sequence[Row]) -> dict[str, Any]:
    """All of it as JSON."""
    return {"machine": machine, "plan": asdict(plan), "rows": [row.to_dict() for row in rows]}
