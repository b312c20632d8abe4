"""Peak resident memory: ours against llama.cpp's own context of the same n_ctx, each in a process of its own.

    python benchmarks/memory.py MODEL [--n-ctx 8192] [--context 4096] [--workers 4] [--n-windows N]

Each process loads the model, prefills `context` tokens and makes 8 passes of `workers` tokens. Printed: peak RSS of
both, their ratio, and what our stored keys and values take. In layers with a sliding window llama.cpp stores a window
for each worker (swa_full=False), and so do we with --n-windows as many.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys

from hogwild_local import Model, SharedCache
from hogwild_local.cli.baseline import LlamaBaseline

PASSES = 8


def ours(model: Model, options: argparse.Namespace) -> int:
    with SharedCache(model, options.n_ctx, n_windows=options.n_windows) as cache:
        prompt = cache.block("prompt", anchored=True)
        cache.decode([([prompt], [i % model.n_vocab for i in range(options.context)])])
        workers = [cache.block() for _ in range(options.workers)]
        for _ in range(PASSES):
            cache.decode([([prompt, *(b for b in workers if b is not own), own], [1]) for own in workers])
        return cache.n_bytes


def llama(model: Model, options: argparse.Namespace) -> int:
    with LlamaBaseline(model, options.n_ctx, options.workers, swa_full=False) as baseline:
        baseline.prefill([i % model.n_vocab for i in range(options.context)])
        baseline.share(options.context, options.workers)
        for i in range(PASSES):
            baseline.step(options.context + i, [1] * options.workers)
    return 0


def measure_one(options: argparse.Namespace) -> None:
    with Model(options.model) as model:
        stored = {"ours": ours, "llama": llama}[options.only](model, options)
    print(json.dumps({"peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024, "stored": stored}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--n-ctx", type=int, default=8192)
    parser.add_argument("--context", type=int, default=4096)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--n-windows", type=int)
    parser.add_argument("--only", choices=("ours", "llama"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.only:
        measure_one(options)
        return
    figures = {}
    for name in ("ours", "llama"):
        result = subprocess.run([sys.executable, *sys.argv, "--only", name], check=True, capture_output=True, text=True)
        figures[name] = json.loads(result.stdout.splitlines()[-1])
    peak = {name: figure["peak"] / 2**20 for name, figure in figures.items()}
    ratio = peak["ours"] / peak["llama"]
    print(f"peak RSS: ours {peak['ours']:.0f} MiB, llama.cpp {peak['llama']:.0f} MiB: {ratio:.3f}x")
    print(f"stored keys and values: {figures['ours']['stored'] / 2**20:.0f} MiB for n_ctx {options.n_ctx}")


if __name__ == "__main__":
    main()
