"""Recurrent layers: what they cost a pass of several workers, beside llama.cpp's decoding of as many sequences.

    python benchmarks/recurrent_layers.py [model.gguf] [--contexts 2048] [--workers 4] [--passes 100] [--no-llama]
    python benchmarks/recurrent_layers.py --kernel [--contexts 256,4096,16384] [--workers 1,2,4,8]

Figures are processor time of this process with one thread, ours and llama.cpp's in turn: what other processes do to
the machine changes it little. Of a model: seconds of the prefill and mean milliseconds of a pass, of a prompt and steps
that begin empty, llama.cpp by the faster of flash attention on and off; those of the first passes are not counted. In
layers with a sliding window its sequences can share no prompt that is longer than what it holds there: --swa-full.
--kernel: a gated delta net of Qwen3.5's (16 heads, keys and values of 128) alone, by the length of the prompt and by
workers, each with --step tokens of its own.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from statistics import mean, median

import numpy as np

from hogwild_local import Model, SharedCache
from hogwild_local.cli.baseline import LlamaBaseline
from hogwild_local.engine.native.parts import Recurrence

UNCOUNTED = 4
N_HEAD, D = 16, 128


def processor_seconds(call: Callable[[], object]) -> float:
    begin = time.process_time()
    call()
    return time.process_time() - begin


def whole_model(model: Model, context: int, n_workers: int, options: argparse.Namespace) -> None:
    n_ctx = context + n_workers * (options.passes + 8) + 64
    rng = random.Random(1)
    tokens = [rng.randrange(model.n_vocab) for _ in range(context)]
    with ExitStack() as stack:
        cache = stack.enter_context(SharedCache(model, n_ctx))
        flash = {"on": True, "off": False} if options.llama else {}
        llamas = {
            name: stack.enter_context(
                LlamaBaseline(model, n_ctx, n_workers, flash_attention=on, swa_full=options.swa_full)
            )
            for name, on in flash.items()
        }
        prompt, own = cache.block("prompt", anchored=True), [cache.block(f"worker {i}") for i in range(n_workers)]
        views = [[prompt, *(other for other in own if other is not one), one] for one in own]
        prefill = {"ours": 0.0, **dict.fromkeys(llamas, 0.0)}
        for done in range(0, context, cache.n_batch):
            chunk = tokens[done : done + cache.n_batch]
            prefill["ours"] += processor_seconds(partial(cache.decode, [([prompt], chunk)]))
            for name, llama in llamas.items():
                prefill[name] += processor_seconds(partial(llama.feed, chunk, done))
        for llama in llamas.values():
            llama.keep_prompt()
            llama.share(context, n_workers)
        passes: dict[str, list[float]] = {name: [] for name in prefill}
        for i in range(options.passes):
            ids = [rng.randrange(model.n_vocab) for _ in own]
            feeds = [(view, [token]) for view, token in zip(views, ids, strict=True)]
            passes["ours"].append(processor_seconds(partial(cache.decode, feeds)))
            for name, llama in llamas.items():
                passes[name].append(processor_seconds(partial(llama.step, context + i, ids)))
        decode = {name: 1e3 * mean(times[UNCOUNTED:]) for name, times in passes.items()}
        for what, unit, figures in (("prefill", "s", prefill), ("pass", "ms", decode)):
            theirs = min((figures[name] for name in llamas), default=None)
            beside = "" if theirs is None else f", llama.cpp {theirs:.1f} {unit}: {theirs / figures['ours']:.2f}x"
            print(f"{context} tokens, {n_workers} workers, {what}: {figures['ours']:.1f} {unit}{beside}", flush=True)
        print(f"  keys, values and states: {cache.n_bytes / 2**20:.0f} MiB")


def kernel(context: int, n_workers: int, step: int) -> None:
    rng = np.random.default_rng(1)
    net = Recurrence(2, N_HEAD, D, D, 1)

    def feed(views: list[tuple[list[int], int]]) -> None:
        n = sum(n for _, n in views)
        k = rng.normal(size=(n, N_HEAD, D))
        rows = [rng.normal(size=(n, N_HEAD, D)), k / np.linalg.norm(k, axis=-1, keepdims=True),
                rng.normal(size=(n, N_HEAD, D)), np.full((n, N_HEAD), -0.02), np.full((n, N_HEAD), 0.5)]  # fmt: skip
        inputs = [array.astype(np.float32) for array in rows]
        out = np.empty((n, N_HEAD * D), np.float32)
        seconds.append(processor_seconds(partial(net.run, views, inputs, out, n_groups=N_HEAD)))

    seconds: list[float] = []
    for block in range(n_workers + 1):
        net.change("add", block, int(block == 0))  # the prompt is anchored
    for done in range(0, context, 512):
        feed([([0], min(512, context - done))])
    prefill = sum(seconds)
    own = list(range(1, n_workers + 1))
    views = [([0, *(other for other in own if other != one), one], 1) for one in own]
    for _ in range(step):
        feed(views)
    seconds.clear()
    for _ in range(16):
        feed(views)
    print(
        f"{context} tokens, {n_workers} workers with {step} each: {1e6 * median(seconds):.0f} us a pass; "
        f"prefill {1e6 * prefill / context:.0f} us a token",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?")
    parser.add_argument("--kernel", action="store_true")
    parser.add_argument("--contexts", default="2048")
    parser.add_argument("--workers", default="4")
    parser.add_argument("--step", type=int, default=24)
    parser.add_argument("--passes", type=int, default=100)
    parser.add_argument("--swa-full", action="store_true")
    parser.add_argument("--no-llama", dest="llama", action="store_false")
    options = parser.parse_args()
    cases = [(int(n), int(w)) for n in options.contexts.split(",") for w in options.workers.split(",")]
    if options.kernel:
        for context, n_workers in cases:
            kernel(context, n_workers, options.step)
        return
    if options.model is None:
        parser.error("name a model, or say --kernel")
    with Model(options.model, n_threads=1) as model:
        for context, n_workers in cases:
            whole_model(model, context, n_workers, options)


if __name__ == "__main__":
    main()
