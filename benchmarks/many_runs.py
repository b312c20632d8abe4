"""Several runs of one Hogwild at once against the same runs one after the other: seconds, and passes of the engine.

    python benchmarks/many_runs.py model.gguf [--runs 2] [--workers 2] [--prompt 256] [--passes 64] [--threads 2]
        [--rounds 3]

Each run is iterated by a thread of its own, so calls of all runs are merged into one forward pass. Both ways in turn,
greedy, with random tokens as prompts; the first round is not counted. The ratio is of medians.
"""

from __future__ import annotations

import argparse
import random
from concurrent.futures import ThreadPoolExecutor
from statistics import median
from time import perf_counter

from hogwild_local import Hogwild, SamplingParams


def prompt_of(length: int, seed: int) -> str:
    """Words, about as many as tokens wanted: what is measured depends on their number alone."""
    return " ".join(str(random.Random(seed).randrange(10)) for _ in range(length // 2))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--runs", type=int, default=2)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--prompt", type=int, default=256)
    parser.add_argument("--passes", type=int, default=64)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    times: dict[str, list[float]] = {"one after the other": [], "at once": []}
    with Hogwild(options.model, n_ctx=16384, n_threads=options.threads) as hogwild:

        def run(index: int) -> float:
            """Milliseconds of the passes of one run, without its prompt."""
            result = hogwild.generate(
                prompt_of(options.prompt, index), workers=options.workers, max_passes=options.passes, seed=index,
                sampling=SamplingParams(temperature=0.0), finisher=False,
            )  # fmt: skip
            return result.timings.generate_ms

        for _ in range(options.rounds + 1):
            for way, n_threads in (("one after the other", 1), ("at once", options.runs)):
                start = perf_counter()
                with ThreadPoolExecutor(n_threads) as pool:
                    list(pool.map(run, range(options.runs)))
                times[way].append(perf_counter() - start)
    medians = {way: median(of_rounds[1:]) for way, of_rounds in times.items()}
    for way, seconds in medians.items():
        print(f"{way:20} {seconds:8.2f} s for {options.runs} runs of {options.workers} workers")
    print(f"ratio {medians['at once'] / medians['one after the other']:.2f}")


if __name__ == "__main__":
    main()
