"""What Python adds to a pass: the time of the worker loop without decode and sampling.

Method: a fake engine, whose decode returns one preallocated array and whose samplers play an endless text
with ends of steps, so every pass does all the book-keeping (views, UTF-8, stop strings, end-of-step rule,
events). Time inside the fake engine, samplers included, is taken off. Warm-up run first; then the median and the
spread over repeated runs.

    python benchmarks/python_overhead.py [--workers 4] [--passes 2000] [--runs 9]
"""

from __future__ import annotations

import argparse
import platform
import statistics
import sys
from dataclasses import replace
from functools import cache
from itertools import cycle
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from fakes import FakeCache, FakeEngine

from hogwild_local.events import RunEnded, StepStarted
from hogwild_local.hogwild import Hogwild

# A step of 40 tokens, most of one character: as many events as a real step of that length.
STEP = "The sum of the first n odd numbers is n squared" + ".\n\n"


def main() -> None:
    options = arguments()
    times = [one_run(options.workers, options.passes) for _ in range(options.runs + 1)][1:]
    median, low, high = statistics.median(times), min(times), max(times)
    print(f"{platform.processor() or platform.machine()}, Python {platform.python_version()}")
    print(f"{options.workers} workers, {options.passes} passes, {options.runs} runs")
    print(f"Python adds {median:.4f} ms a pass (median; {low:.4f} to {high:.4f})")


def one_run(workers: int, passes: int) -> float:
    """Milliseconds a pass, as the consumer of the events sees it, without decode and sampling."""
    fake = FakeEngine()
    logits = np.zeros((workers, fake.model.n_vocab), dtype=np.float32)
    tokens = fake.model.tokenize(STEP, add_special=False)
    # The real model layer remembers the bytes of its tokens too.
    fake.model.token_bytes = cache(fake.model.token_bytes)  # type: ignore[method-assign]

    class Cache(FakeCache):
        def decode(self, views: Any) -> Any:
            return logits[: len(views)]

    class Sampler:
        def __init__(self, model: object, params: object) -> None:
            self.text = cycle(tokens)

        def sample(self, logits: object) -> int:
            return next(self.text)

        def close(self) -> None:
            pass

    fake.model.n_ctx_train = 0  # unknown
    engine = replace(fake.engine, cache=Cache, sampler=Sampler)
    with Hogwild("fake.gguf", n_ctx=10**6, n_batch=4096, engine=engine) as hogwild:
        run = hogwild.stream("P", workers=workers, max_passes=passes, finisher=False, stop=["STOP"], seed=1)
        start = 0.0
        for event in run:
            start = start or (perf_counter() if isinstance(event, StepStarted) else 0.0)
            if isinstance(event, RunEnded):
                timings = event.timings
        total = perf_counter() - start
    return (1e3 * total - timings.decode_ms) / timings.passes


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--passes", type=int, default=2000)
    parser.add_argument("--runs", type=int, default=9)
    return parser.parse_args()


if __name__ == "__main__":
    main()
