"""What is not a forward pass: moving a step into the history, and what Python adds to a pass.

    python benchmarks/cache_operations.py MODEL [--context 2048] [--workers 4] [--step 64]

append: milliseconds of block.append() of a finished step to a history of `context` tokens, beside a pass of the same
workers in turn with it. python: SharedCache.decode less the C call in it, by timing the same passes at both levels.
Medians of 20, after two uncounted rounds.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

from hogwild_local import Model, SharedCache
from hogwild_local.engine.native import cache as native_cache

ROUNDS = 20


def milliseconds(call: Callable[[], object]) -> float:
    begin = time.perf_counter()
    call()
    return 1e3 * (time.perf_counter() - begin)


def measure_append(model: Model, options: argparse.Namespace) -> None:
    with SharedCache(model, options.context + (options.workers + ROUNDS + 4) * options.step + 256) as cache:
        history = cache.block("history")
        workers = [cache.block() for _ in range(options.workers)]
        cache.decode([([history], [1] * options.context)])
        appends, passes = [], []
        for _ in range(ROUNDS + 2):
            cache.decode([([history, workers[0]], [1] * (options.step - len(workers[0])))])
            views = [([history, *(b for b in workers if b is not own), own], [1]) for own in workers]
            passes.append(milliseconds(lambda views=views: cache.decode(views)))  # type: ignore[misc]
            workers[0].truncate(options.step)
            appends.append(milliseconds(lambda: history.append(workers[0])))
            history.truncate(options.context)
            for worker in workers[1:]:
                worker.clear()
    append, one_pass = statistics.median(appends[2:]), statistics.median(passes[2:])
    print(f"append of {options.step} tokens to {options.context}: {append:.2f} ms; a pass: {one_pass:.2f} ms", end="")
    print(f" ({append / one_pass:.2f} passes)")


def measure_python(model: Model, options: argparse.Namespace) -> None:
    """The C call is timed from inside: what is left of decode() is Python and cffi."""
    inside: list[float] = []
    call = native_cache.call

    def timed(*args: object) -> None:
        inside.append(milliseconds(lambda: call(*args)))  # type: ignore[arg-type]

    with SharedCache(model, 1024) as cache:
        prompt = cache.block("prompt")
        cache.decode([([prompt], [1] * 64)])
        workers = [cache.block() for _ in range(options.workers)]
        views = [([prompt, *(b for b in workers if b is not own), own], [1]) for own in workers]
        native_cache.call = timed
        try:
            outside = [milliseconds(lambda: cache.decode(views)) for _ in range(ROUNDS + 2)]
        finally:
            native_cache.call = call
    added = statistics.median(o - i for o, i in zip(outside[2:], inside[2:], strict=True))
    print(f"Python in SharedCache.decode: {added:.3f} ms a pass of {options.workers} workers")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--context", type=int, default=2048)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--step", type=int, default=64)
    parser.add_argument("--threads", type=int)
    options = parser.parse_args()
    with Model(options.model, n_threads=options.threads) as model:
        measure_append(model, options)
        measure_python(model, options)


if __name__ == "__main__":
    main()
