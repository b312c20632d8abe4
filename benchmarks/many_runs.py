"""Runs at once against the same runs one after the other: seconds, and how many views a pass has.

    python benchmarks/many_runs.py model.gguf [--runs 2] [--workers 2] [--prompt 256] [--passes 32] [--threads 2]
        [--rounds 3]

A run is a thread that decodes for its workers, greedily, as the worker loop does: a prompt of random tokens of its own,
every worker sees all others. Calls of all threads are merged into one forward pass. Prefill is not timed. "by one
caller" is what the machine allows: one thread that gives the workers of all runs to each pass, so nothing is merged.
The ways in turn, the first round not counted; ratios are of medians, to "one after the other".
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from statistics import median
from time import perf_counter

from hogwild_local import CacheBlock, Model, Sampler, SamplingParams, SharedCache

View = tuple[list[CacheBlock], list[int]]
WAYS = ("one after the other", "at once", "by one caller")


@contextmanager
def prepared(
    model: Model, cache: SharedCache, options: argparse.Namespace, seed: int
) -> Iterator[list[list[CacheBlock]]]:
    """The views of one run over a prompt that is in the cache."""
    chance = random.Random(seed)
    prompt = cache.block("prompt", anchored=True)
    own = [cache.block(f"worker {index}") for index in range(options.workers)]
    cache.decode([([prompt], [chance.randrange(model.n_vocab) for _ in range(options.prompt)])])
    yield [[prompt, *(other for other in own if other is not mine), mine] for mine in own]
    for block in (prompt, *own):
        block.free()


def decode(cache: SharedCache, views: list[list[CacheBlock]], samplers: list[Sampler], passes: int) -> None:
    tokens: list[int | None] = [1] * len(views)
    for _ in range(passes):
        fed: list[View] = [(view, [token or 0]) for view, token in zip(views, tokens, strict=True)]
        tokens = cache.next_tokens(fed, samplers)


def seconds(model: Model, cache: SharedCache, options: argparse.Namespace, way: str) -> float:
    """Of all runs, in one of WAYS."""
    greedy = SamplingParams(temperature=0.0)
    with ExitStack() as stack:
        runs = [stack.enter_context(prepared(model, cache, options, seed)) for seed in range(options.runs)]
        if way == "by one caller":
            runs = [[view for views in runs for view in views]]
        samplers = [[Sampler(model, greedy) for _ in views] for views in runs]
        pool = stack.enter_context(ThreadPoolExecutor(1 if way == "one after the other" else len(runs)))
        start = perf_counter()
        list(pool.map(lambda index: decode(cache, runs[index], samplers[index], options.passes), range(len(runs))))
        return perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    for name, default in (("runs", 2), ("workers", 2), ("prompt", 256), ("passes", 32), ("threads", 2), ("rounds", 3)):
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    times: dict[str, list[float]] = {way: [] for way in WAYS}
    n_ctx = options.runs * (options.prompt + options.workers * (options.passes + 1)) + 256
    with Model(options.model, n_threads=options.threads) as model, SharedCache(model, n_ctx=n_ctx) as cache:
        for _ in range(options.rounds + 1):
            for way in WAYS:
                times[way].append(seconds(model, cache, options, way))
    medians = {way: median(of_rounds[1:]) for way, of_rounds in times.items()}
    print(f"{options.runs} runs of {options.workers} workers")
    for way, taken in medians.items():
        print(f"{way:20} {taken:8.2f} s {taken / medians[WAYS[0]]:6.2f}x")


if __name__ == "__main__":
    main()
