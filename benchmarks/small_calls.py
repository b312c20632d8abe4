"""How long small calls take beside another caller's passes: milliseconds, median and longest of so many.

    python benchmarks/small_calls.py [model.gguf] [--threads 2] [--workers 4] [--calls 40]

Each in this process, and with the engine in a process of its own; alone, and while another thread runs passes of so
many workers one after the other.
"""

from __future__ import annotations

import argparse
import threading
import time
from collections.abc import Callable
from statistics import median

from hogwild_local import Model, Sampler, SharedCache
from hogwild_local.cli.measure import seconds_of
from hogwild_local.engine.default_model import default_model_path

TEXT = "What is waited for, and for how long? "


def times_ms(call: Callable[[], object], n: int) -> list[float]:
    times = []
    for _ in range(n):
        times.append(1e3 * seconds_of(call))
        time.sleep(0.01)  # so that it comes at any point of a pass
    return times


def passes(cache: SharedCache, n_workers: int, is_over: threading.Event, times: list[float]) -> None:
    blocks = [cache.block() for _ in range(n_workers)]
    while not is_over.is_set():
        times.append(1e3 * seconds_of(lambda: cache.decode([([block], [1]) for block in blocks])))
        if len(blocks[0]) >= 200:
            for block in blocks:
                block.clear()


def measure(model: Model, n_workers: int, n_calls: int) -> None:
    with SharedCache(model, n_ctx=256 * n_workers) as cache:
        tokens = model.tokenize(TEXT)
        calls: dict[str, Callable[[], object]] = {
            "tokenize": lambda: model.tokenize(TEXT),
            "detokenize": lambda: model.detokenize(tokens),
            "a sampler": lambda: Sampler(model).close(),
            "n_free": lambda: cache.n_free,
        }
        alone = {name: times_ms(call, n_calls) for name, call in calls.items()}
        is_over, of_passes = threading.Event(), list[float]()
        thread = threading.Thread(target=passes, args=(cache, n_workers, is_over, of_passes))
        thread.start()
        beside = {name: times_ms(call, n_calls) for name, call in calls.items()}
        is_over.set()
        thread.join()
        print(f"  passes of {n_workers}: {median(of_passes):.1f}")
        for name in calls:
            here = " ".join(f"{median(times):10.2f} {max(times):8.2f}" for times in (alone[name], beside[name]))
            print(f"  {name:12} {here}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--calls", type=int, default=40)
    options = parser.parse_args()
    path = options.model or default_model_path()
    for isolate in (False, True):
        print("a process of its own" if isolate else "this process", "alone, and beside passes: median, longest")
        with Model(path, n_threads=options.threads, isolate=isolate) as model:
            measure(model, options.workers, options.calls)


if __name__ == "__main__":
    main()
