"""What it brings to give a pass more rows than it has tokens: milliseconds of passes of 1 to 8 workers, in turn.

    python benchmarks/pass_sizes.py model.gguf [--threads 2] [--context 64] [--passes 20] [--sizes 1,2,3,4,5,6,7,8]

"as it is": in a cache whose n_batch is the number of tokens, so that there is no room for more. "padded": as the engine
does it (cpp/engine/pass-size.h); "rows": how many it took. "of one": padded, as a multiple of the pass of one token.
Medians; the two first passes are not counted.
"""

from __future__ import annotations

import argparse
import random
from contextlib import ExitStack
from functools import partial
from statistics import median

from hogwild_local import Model, SharedCache
from hogwild_local.cli.measure import seconds_of

UNCOUNTED = 2


def numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


class Workers:
    """A prompt and n workers that see it and each other, in a cache of their own."""

    def __init__(self, model: Model, n: int, n_batch: int, prompt: list[int], n_passes: int) -> None:
        n_ctx = len(prompt) + n * n_passes + 64
        self.cache = SharedCache(model, n_ctx, n_batch=n_batch)
        block = self.cache.block("prompt")
        for begin in range(0, len(prompt), n_batch):
            self.cache.decode([([block], prompt[begin : begin + n_batch])])
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
        runs = {
            (n, n_batch): Workers(model, n, n_batch, prompt, n_passes) for n in options.sizes for n_batch in (n, 512)
        }
        times: dict[tuple[int, int], list[float]] = {key: [] for key in runs}
        for workers in runs.values():
            stack.enter_context(workers.cache)
        for _ in range(n_passes):  # all in turn, so that a change of the machine's speed meets all
            for key, workers in runs.items():
                tokens = [rng.randrange(model.n_vocab) for _ in range(key[0])]
                times[key].append(seconds_of(partial(workers.step, tokens)))
        ms = {key: 1e3 * median(of_key[UNCOUNTED:]) for key, of_key in times.items()}
        one = ms[options.sizes[0], 512]
        print(f"{'tokens':>8}{'rows':>6}{'as it is':>10}{'padded':>10}{'ratio':>8}{'of one':>8}")
        for n in options.sizes:
            rows = runs[n, 512].cache.pass_size(n)
            print(f"{n:8}{rows:6}{ms[n, n]:10.1f}{ms[n, 512]:10.1f}{ms[n, 512] / ms[n, n]:8.3f}{ms[n, 512] / one:8.2f}")


if __name__ == "__main__":
    main()
