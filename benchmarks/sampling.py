"""What sampling adds to a pass of 8 workers with a vocabulary of 150,000, before and after.

before: logits are copied to Python, and llama.cpp's chain looks at all tokens, one worker after the other; a grammar is
asked about each of them. after: next_tokens(), which samples on a pool of threads from what lies in ggml's buffer.
Both as milliseconds a pass beyond one that computes logits and gives them to nobody. Method: warm-up, then the median
and the spread over repeated passes, the kinds in turn.

    python benchmarks/sampling.py [--workers 8] [--vocabulary 150000] [--threads 2] [--passes 30]
"""

from __future__ import annotations

import argparse
import platform
import statistics
import sys
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
sys.path.append(str(Path(__file__).resolve().parents[1]))

from llama_chain import chain_of

from hogwild_local import Model, Sampler, SamplingParams, SharedCache
from hogwild_local.engine.native import DecodeView
from models.tiny import TINY
from models.transformer import write_transformer
from models.weights import seeded

PARAMS = {
    "default": SamplingParams(),
    "greedy": SamplingParams(temperature=0),
    "penalties": SamplingParams(repeat_penalty=1.1, presence_penalty=0.5),
    "no top_k": SamplingParams(top_k=0),
    "grammar": SamplingParams(grammar="root ::= [^\\x00]*"),  # allows nearly all: what is drawn is mostly right
}


def main() -> None:
    options = arguments()
    print(f"{platform.processor() or platform.machine()}, {options.threads} threads")
    print(f"{options.workers} workers, a vocabulary of {options.vocabulary}, {options.passes} passes")
    with TemporaryDirectory() as directory:
        path = Path(directory) / "wide.gguf"
        shape = replace(TINY["llama-bos"], vocabulary=options.vocabulary)
        write_transformer(path, "wide", shape, "f32", seeded(0))
        with Model(path, n_threads=options.threads) as model:
            for name, params in PARAMS.items():
                compare(name, model, params, options.workers, options.passes)


def compare(name: str, model: Model, params: SamplingParams, n_workers: int, n_passes: int) -> None:
    with ExitStack() as stack:
        cache = stack.enter_context(SharedCache(model, n_ctx=n_workers * 8, n_batch=n_workers))
        seeds = [replace(params, seed=seed) for seed in range(n_workers)]
        samplers = [Sampler(model, each) for each in seeds]
        chains = [stack.enter_context(chain_of(model, each)) for each in seeds]
        blocks = [cache.block() for _ in seeds]
        views = [([block], [7 + i]) for i, block in enumerate(blocks)]
        wanted = [DecodeView([block._use()], [7 + i]) for i, block in enumerate(blocks)]

        def before() -> None:
            for row, chain in zip(cache.decode(views), chains, strict=True):
                chain(row)

        def timed(work: Callable[[], object]) -> float:
            for block in blocks:
                block.clear()
            start = perf_counter()
            work()
            return 1000 * (perf_counter() - start)

        kinds: list[Callable[[], object]] = [
            lambda: cache._native.decode(wanted),
            before,
            lambda: cache.next_tokens(views, samplers),
        ]
        times = [[timed(kind) for kind in kinds] for _ in range(n_passes + 2)][2:]
    plain = statistics.median(row[0] for row in times)
    for kind, column in (("before", 1), ("after", 2)):
        added = [row[column] - plain for row in times]
        print(f"{name:10} {kind:6} {statistics.median(added):8.2f} ms ({min(added):.2f} to {max(added):.2f})")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--vocabulary", type=int, default=150_000)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--passes", type=int, default=30)
    return parser.parse_args()


if __name__ == "__main__":
    main()
