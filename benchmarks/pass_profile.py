"""One pass of several workers, looked into: what the engine counts, and where the time goes.

    python benchmarks/pass_profile.py model.gguf [--n-gpu-layers -1] [--context 4096] [--copies 0] [--workers 4]
        [--step 32] [--passes 60] [--threads N] [--profiler cuda|nodes] [--json FILE]

The workers see a prompt, and each other's step, of which each has written --step tokens. Counted: graphs that were
built, graphs that llama.cpp was asked for, cells mirrored and moved, over all passes. --profiler cuda lets NVIDIA's
tools see those passes alone (nsys profile --capture-range=cudaProfilerApi; ncu --profile-from-start off). --profiler
nodes times each node of ggml's graph, on any device: it waits for each, and so adds some microseconds to it.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

from hogwild_local import Model, SharedCache
from hogwild_local.cli.measure import seconds_of
from hogwild_local.engine.node_times import timed_nodes

UNCOUNTED = 2
COUNTERS = ("n_graphs", "n_source_graphs", "n_mirrored", "n_mirrored_values", "n_moved", "n_scores")
MOST = 24  # nodes that are told one by one


@contextmanager
def seen_by_cuda_tools() -> Iterator[None]:
    """Raises OSError where there is no driver of CUDA."""
    driver = ctypes.CDLL("libcuda.so.1")
    driver.cuProfilerStart()
    try:
        yield
    finally:
        driver.cuProfilerStop()


def counted(cache: SharedCache) -> dict[str, int]:
    return {name: int(getattr(cache, name)) for name in COUNTERS if hasattr(cache, name)}


class Workers:
    def __init__(self, model: Model, cache: SharedCache, options: argparse.Namespace) -> None:
        self.rng, self.n_vocab, self.cache = random.Random(1), model.n_vocab, cache
        prompt = cache.block("prompt", anchored=not options.copies)
        for done in range(0, options.context, cache.n_batch):
            cache.decode([([prompt], self.tokens(min(cache.n_batch, options.context - done)))])
        for copy in [cache.copy(prompt) for _ in range(options.copies)]:
            prompt.append(copy)
            copy.free()
        own = [cache.block(f"worker {i}") for i in range(options.workers)]
        for block in own if options.step else []:
            cache.decode([([prompt, block], self.tokens(options.step))])
        self.views = [[prompt, *(other for other in own if other is not one), one] for one in own]

    def tokens(self, n: int) -> list[int]:
        return [self.rng.randrange(self.n_vocab) for _ in range(n)]

    def step(self) -> object:
        return self.cache.decode([(view, self.tokens(1)) for view in self.views])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--n-gpu-layers", type=int, default=-1)
    parser.add_argument("--context", type=int, default=4096)
    parser.add_argument("--copies", type=int, default=0, help="of the prompt behind it: a long one that is soon fed")
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--step", type=int, default=32)
    parser.add_argument("--passes", type=int, default=60)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--profiler", choices=["cuda", "nodes"])
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    n_ctx = (
        (1 + options.copies) * options.context
        + (options.workers + 2) * options.workers * (options.step + options.passes)
        + 1024
    )
    with (
        Model(options.model, n_gpu_layers=options.n_gpu_layers, n_threads=options.threads) as model,
        SharedCache(model, n_ctx) as cache,
    ):
        workers = Workers(model, cache, options)
        for _ in range(UNCOUNTED):
            workers.step()
        print(*cache.devices, sep="\n")
        figures = nodes(workers, options) if options.profiler == "nodes" else counts(workers, options)
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


def counts(workers: Workers, options: argparse.Namespace) -> dict[str, Any]:
    before = counted(workers.cache)
    if options.profiler == "cuda":
        with seen_by_cuda_tools():
            times = [seconds_of(workers.step) for _ in range(options.passes)]
    else:
        times = [seconds_of(workers.step) for _ in range(options.passes)]
    found = {name: count - before[name] for name, count in counted(workers.cache).items()}
    print(f"{1e3 * median(times):.2f} ms a pass; in {options.passes} passes: {found}")
    given = {name: getattr(options, name) for name in ("context", "workers", "step", "passes")}
    return {"rows": [{**given, "ms": 1e3 * median(times), "counts": found}]}


def nodes(workers: Workers, options: argparse.Namespace) -> dict[str, Any]:
    with timed_nodes(workers.cache) as times:
        for _ in range(options.passes):
            workers.step()
    total = sum(time.microseconds for time in times)
    rows = [
        {
            "kernel": time.kind, "calls": time.count / options.passes, "us": time.microseconds / options.passes,
            "share": time.microseconds / total,
        }
        for time in times
    ]  # fmt: skip
    for row in rows[:MOST]:
        print(f"{row['calls']:8.1f} {row['us']:10.1f} us {row['share']:7.1%}  {row['kernel']}")
    return {
        "tool": "time a node, each waited for",
        "us": total / options.passes,
        "kernels": len(rows),
        "rows": rows[:MOST],
    }


if __name__ == "__main__":
    main()
