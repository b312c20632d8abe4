"""A long prompt beside callers that decode: how much longer their passes take while it is fed, and what it waits.

    python benchmarks/long_prompt.py model.gguf [--callers 4] [--context 256] [--prompt 1024] [--quiet 20] [--threads 2]
        [--rounds 3] [--isolate]

Each caller is a thread that feeds one token after the other; calls of all threads are merged into one forward pass. In
each round they decode alone for a while, then a thread more feeds a prompt, which is cut into parts that join their
passes; and the same prompt is fed while nobody decodes. So a change of the machine's speed meets all three. --isolate:
the engine in a process of its own. Ratios are of medians; "95 %": so many passes are no longer.
"""

from __future__ import annotations

import argparse
import random
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from statistics import median, quantiles

from hogwild_local import CacheBlock, Model, SharedCache
from hogwild_local.cli.measure import seconds_of


class Scene:
    """Callers over a context of their own each, and the time of each of their calls."""

    def __init__(self, cache: SharedCache, n_vocab: int, options: argparse.Namespace) -> None:
        self.cache, self.options = cache, options
        chance = random.Random(1)
        self.tokens = [chance.randrange(n_vocab) for _ in range(max(options.prompt, options.context))]
        self.contexts = [self.filled(options.context) for _ in range(options.callers)]

    def filled(self, n: int) -> CacheBlock:
        block = self.cache.block()
        self.cache.decode([([block], self.tokens[:n])])
        return block

    def feed_prompt(self) -> float:
        """Its seconds."""
        block = self.cache.block()
        taken = seconds_of(partial(self.cache.decode, [([block], self.tokens[: self.options.prompt])]))
        block.free()
        return taken

    @contextmanager
    def decoding(self, times: list[float]) -> Iterator[threading.Event]:
        """All callers decode, while the block lasts. Yields an event that is set when each has made its passes."""
        ended, enough = threading.Event(), threading.Event()

        def call(context: CacheBlock) -> None:
            own, mine = self.cache.block(), []
            while not ended.is_set():
                mine.append(seconds_of(partial(self.cache.decode, [([context, own], [7])])))
                if len(mine) == self.options.quiet:
                    enough.set()
            times.extend(mine)
            own.free()

        threads = [threading.Thread(target=call, args=(context,)) for context in self.contexts]
        for thread in threads:
            thread.start()
        try:
            yield enough
        finally:
            ended.set()
            for thread in threads:
                thread.join()


def told(name: str, times: Sequence[float], base: float) -> None:
    most = quantiles(times, n=20)[-1] if len(times) > 1 else times[0]
    print(
        f"{name:34}{1e3 * median(times):10.1f} ms{median(times) / base:7.2f}x   95 %:{1e3 * most:10.1f} ms", flush=True
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    for name, default in (
        ("callers", 4),
        ("context", 256),
        ("prompt", 1024),
        ("quiet", 20),
        ("threads", 2),
        ("rounds", 3),
    ):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--isolate", action="store_true")
    options = parser.parse_args()
    alone: list[float] = []
    beside: list[float] = []
    prompt_alone: list[float] = []
    prompt_beside: list[float] = []
    n_ctx = 8192 + options.prompt + options.callers * options.context
    with ExitStack() as stack:
        model = stack.enter_context(Model(options.model, n_threads=options.threads, isolate=options.isolate))
        scene = Scene(stack.enter_context(SharedCache(model, n_ctx=n_ctx)), model.n_vocab, options)
        for _ in range(options.rounds):
            with scene.decoding(alone) as enough:
                enough.wait()
            with scene.decoding(beside):
                prompt_beside.append(scene.feed_prompt())
            prompt_alone.append(scene.feed_prompt())
    print(f"{options.callers} callers of {options.context} tokens, a prompt of {options.prompt}")
    told("a pass of the callers", alone, median(alone))
    told("while the prompt is fed", beside, median(alone))
    told("the prompt, nobody decodes", prompt_alone, median(prompt_alone))
    told("the prompt, beside them", prompt_beside, median(prompt_alone))


if __name__ == "__main__":
    main()
