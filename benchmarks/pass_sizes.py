"""What a pass of few tokens costs: milliseconds of passes of 1 to 8 workers, beside llama.cpp's own decode.

    python benchmarks/pass_sizes.py model.gguf [--threads 2] [--context 64] [--passes 20] [--sizes 1,2,3,4,5,6,7,8]

llama.cpp decodes as many sequences behind the same prompt, with flash attention and without; the faster one counts.
"ratio": ours to that. "of one": as a multiple of the pass of one token, each of its own. All sizes are measured in
turn, so that a change of the speed meets all. Medians; the two first passes are not counted.
"""

from __future__ import annotations

import argparse
import random
from contextlib import ExitStack
from functools import partial
from statistics import median

from hogwild_local import Model, SharedCache
from hogwild_local.cli.baseline import LlamaBaseline
from hogwild_local.cli.measure import seconds_of

UNCOUNTED = 2


def numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


class Workers:
    """A prompt and n workers that see it and each other, in a cache of their own."""

    def __init__(self, model: Model, n: int, prompt: list[int], n_passes: int) -> None:
        self.cache = SharedCache(model, len(prompt) + n * n_passes + 64)
        block = self.cache.block("prompt")
        self.cache.decode([([block], prompt)])
        own = [self.cache.block(f"worker {i}") for i in range(n)]
        self.views = [[block, *(other for other in own if other is not one), one] for one in own]

    def step(self, tokens: list[int]) -> object:
        return self.cache.decode([(view, [token]) for view, token in zip(self.views, tokens, strict=True)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--context", type=int, default=64)
    parser.add_argument("--passes", type=int, default=20)
    parser.add_argument("--sizes", type=numbers, default=[1, 2, 3, 4, 5, 6, 7, 8])
    options = parser.parse_args()
    rng = random.Random(1)
    with ExitStack() as stack:
        model = stack.enter_context(Model(options.model, n_threads=options.threads))
        prompt = [rng.randrange(model.n_vocab) for _ in range(options.context)]
        n_passes = options.passes + UNCOUNTED
        ours = {n: Workers(model, n, prompt, n_passes) for n in options.sizes}
        most = max(options.sizes)
        theirs = [LlamaBaseline(model, len(prompt) + most + 64, most, flash_attention=on) for on in (True, False)]
        for workers in ours.values():
            stack.enter_context(workers.cache)
        for baseline in theirs:
            stack.callback(baseline.close)
            baseline.prefill(prompt)
        times: dict[tuple[int, str], list[float]] = {(n, who): [] for n in ours for who in ("ours", "on", "off")}
        for _ in range(n_passes):
            for n, workers in ours.items():
                tokens = [rng.randrange(model.n_vocab) for _ in range(n)]
                times[n, "ours"].append(seconds_of(partial(workers.step, tokens)))
                for flash, baseline in zip(("on", "off"), theirs, strict=True):
                    baseline.share(len(prompt), n)
                    times[n, flash].append(seconds_of(partial(baseline.step, len(prompt), tokens)))
        report(options.sizes, {key: 1e3 * median(of_key[UNCOUNTED:]) for key, of_key in times.items()})


def report(sizes: list[int], ms: dict[tuple[int, str], float]) -> None:
    print(f"{'tokens':>8}{'llama.cpp':>11}{'of one':>8}{'ours':>8}{'of one':>8}{'ratio':>8}")
    better = {n: min(ms[n, "on"], ms[n, "off"]) for n in sizes}
    first = sizes[0]
    for n in sizes:
        ours = ms[n, "ours"]
        print(
            f"{n:8}{better[n]:11.1f}{better[n] / better[first]:8.2f}{ours:8.1f}{ours / ms[first, 'ours']:8.2f}"
            f"{ours / better[n]:8.3f}"
        )


if __name__ == "__main__":
    main()
