"""The forms of concurrent attention beside llama.cpp's own decoding: milliseconds a pass, all in turn in each pass.

    python benchmarks/attention_forms.py model.gguf [--forms fused,ggml,composed] [--n-gpu-layers N] [--threads 1]
        [--contexts 256,1024] [--workers 1,2,4] [--steps 8,32,64,128] [--passes 8]

"step" is how many tokens of its unfinished step each worker has written: what the ggml form mirrors grows with it
(see cpp/attention/flash-plan.h). The layout is combined: every worker sees the prompt, the others' steps and its own.
llama.cpp's sequences see the prompt and one token each. Medians of all passes but the first two. Use few threads on a
machine that does other things.
"""

from __future__ import annotations

import argparse
import random
from contextlib import ExitStack
from functools import partial
from statistics import median

from hogwild_local import CacheBlock, Model, SharedCache
from hogwild_local.cli.baseline import LlamaBaseline
from hogwild_local.cli.measure import seconds_of

UNCOUNTED = 2


def numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


class Form:
    """One form of attention: its cache, with a prompt in it, and workers that have begun a step."""

    def __init__(self, model: Model, n_ctx: int, attention: str, prompt: list[int]) -> None:
        self.cache = SharedCache(model, n_ctx, attention=attention)  # type: ignore[arg-type]
        self.prompt = self.cache.block("prompt")
        self.workers: list[CacheBlock] = []
        self.cache.decode([([self.prompt], prompt)])

    def begin(self, n_workers: int, step: int) -> None:
        for block in self.workers:
            block.free()
        self.workers = [self.cache.block(f"worker {i}") for i in range(n_workers)]
        if step > 0:
            for own in self.workers:
                self.cache.decode([([self.prompt, own], [1] * step)])

    def step(self, tokens: list[int]) -> object:
        others = [[block for block in self.workers if block is not own] for own in self.workers]
        views = [([self.prompt, *rest, own], [t]) for rest, own, t in zip(others, self.workers, tokens, strict=True)]
        return self.cache.decode(views)


def measure(model: Model, options: argparse.Namespace, context: int) -> None:
    rng = random.Random(1)
    most = max(options.workers)
    n_ctx = context + most * (max(options.steps) + options.passes) * (most + 2) + 1024
    prompt = [rng.randrange(model.n_vocab) for _ in range(context)]
    with ExitStack() as stack:
        forms = {name: Form(model, n_ctx, name, prompt) for name in options.forms}
        for form in forms.values():
            stack.enter_context(form.cache)
        llama = stack.enter_context(LlamaBaseline(model, context + 64 * most + 256, most))
        llama.prefill(prompt)
        for n_workers in options.workers:
            for step in options.steps:
                for form in forms.values():
                    form.begin(n_workers, step)
                llama.share(context, n_workers)
                times: dict[str, list[float]] = {name: [] for name in [*forms, "llama.cpp"]}
                for i in range(options.passes + UNCOUNTED):
                    tokens = [rng.randrange(model.n_vocab) for _ in range(n_workers)]
                    for name, form in forms.items():
                        times[name].append(seconds_of(partial(form.step, tokens)))
                    times["llama.cpp"].append(seconds_of(partial(llama.step, context + i, tokens)))
                row = "".join(f"{1e3 * median(of_form[UNCOUNTED:]):11.2f}" for of_form in times.values())
                print(f"{context:8}{n_workers:8}{step:8}{row}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--forms", type=lambda text: text.split(","), default=["fused", "ggml", "composed"])
    parser.add_argument("--n-gpu-layers", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--contexts", type=numbers, default=[256, 1024])
    parser.add_argument("--workers", type=numbers, default=[1, 2, 4])
    parser.add_argument("--steps", type=numbers, default=[8, 32, 64, 128])
    parser.add_argument("--passes", type=int, default=8)
    options = parser.parse_args()
    with Model(options.model, n_gpu_layers=options.n_gpu_layers, n_threads=options.threads) as model:
        print(*model.devices, sep="\n")
        print(f"{'context':>8}{'workers':>8}{'step':>8}" + "".join(f"{n:>11}" for n in [*options.forms, "llama.cpp"]))
        for context in options.contexts:
            measure(model, options, context)


if __name__ == "__main__":
    main()
