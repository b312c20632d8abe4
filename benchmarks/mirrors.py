"""What flash attention over several blocks costs beside the attention itself: cells mirrored, graphs built.

    python benchmarks/mirrors.py model.gguf [--beside PYTHON] [--n-gpu-layers N] [--threads 1] [--runs 1,4]
        [--workers 2,4] [--context 1024] [--passes 60] [--rounds 3]

Runs of so many workers each, in the combined layout: all begin with a prompt and an empty step, and every pass gives
each worker a token. Counted: cells a pass whose keys were turned and whose values were copied, graphs that were built
and that llama.cpp was asked for, scores of attention a token. Measured: milliseconds a pass, the median, and the mean,
for graphs are built in few passes. --beside: the Python of another installation (of an older version: what it does not
count is left out), measured in turns with this one. On a busy machine only the counts say something.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from itertools import product
from statistics import mean, median
from time import perf_counter

from hogwild_local import CacheBlock, Model, SharedCache

COUNTS = ("n_mirrored", "n_mirrored_values", "n_graphs", "n_source_graphs", "n_scores")
HEADS = ("runs", "workers", "keys", "values", "graphs", "asked for", "scores", "median ms", "mean ms")


def numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


def views_of(run: list[CacheBlock], rng: random.Random, n_vocab: int) -> Iterator[tuple[list[CacheBlock], list[int]]]:
    prompt, *workers = run
    for own in workers:
        yield [prompt, *(other for other in workers if other is not own), own], [rng.randrange(n_vocab)]


def measure(model: Model, options: argparse.Namespace, n_runs: int, n_workers: int) -> list[float]:
    """A row of the table."""
    rng = random.Random(1)
    n_ctx = 2 * n_runs * (options.context + n_workers * (n_workers + 1) * options.passes) + 1024
    with SharedCache(model, n_ctx, attention="ggml") as cache:
        runs = [[cache.block() for _ in range(1 + n_workers)] for _ in range(n_runs)]
        for run in runs:
            cache.decode([([run[0]], [rng.randrange(model.n_vocab) for _ in range(options.context)])])
        before = [getattr(cache, name, None) for name in COUNTS]
        times = []
        for _ in range(options.passes):
            begin = perf_counter()
            cache.decode([view for run in runs for view in views_of(run, rng, model.n_vocab)])
            times.append(perf_counter() - begin)
        after = [getattr(cache, name, None) for name in COUNTS]
    keys, values, graphs, asked, scores = (
        float("nan") if old is None or new is None else new - old for old, new in zip(before, after, strict=True)
    )
    n_tokens = options.passes * n_runs * n_workers
    counts = [keys / options.passes, values / options.passes, graphs, asked, scores / n_tokens]
    return [n_runs, n_workers, *counts, 1e3 * median(times), 1e3 * mean(times)]


def rounds(options: argparse.Namespace) -> list[list[float]]:
    with Model(options.model, n_gpu_layers=options.n_gpu_layers, n_threads=options.threads) as model:
        return [measure(model, options, *shape) for shape in product(options.runs, options.workers)]


def elsewhere(python: str) -> list[list[float]]:
    command = [python, __file__, *sys.argv[1:], "--as-json"]
    rows: list[list[float]] = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--beside")
    parser.add_argument("--n-gpu-layers", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--runs", type=numbers, default=[1, 4])
    parser.add_argument("--workers", type=numbers, default=[2, 4])
    parser.add_argument("--context", type=int, default=1024)
    parser.add_argument("--passes", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--as-json", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.as_json:
        print(json.dumps(rounds(options)))
        return
    sides = {"here": partial(rounds, options)}
    if options.beside:
        sides["beside"] = partial(elsewhere, options.beside)
    print(f"{'':8}" + "".join(f"{head:>11}" for head in HEADS))
    for _ in range(options.rounds):
        for name, side in sides.items():
            for row in side():
                print(f"{name:8}" + "".join(f"{value:11.4g}" for value in row), flush=True)


if __name__ == "__main__":
    main()
