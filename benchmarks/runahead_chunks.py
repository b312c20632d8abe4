"""How well two short passes tell what chunks of a long prompt cost (docs/runahead.md): seconds of chunks alone, by one
process, beside what the cost model says of them.

    python benchmarks/runahead_chunks.py model.gguf [--threads 1] [--cpu-time] [--chunks 512:0,1024:1024]

--chunks: tokens of a chunk, and of those before it. A chunk is computed behind cells that hold nothing, as in the
probes: it costs what it costs behind real ones. --cpu-time: of one thread, for a machine that is not quiet.
"""

from __future__ import annotations

import argparse
import time

from hogwild_local import Model, SharedCache
from hogwild_local.runahead.costs import pairs
from hogwild_local.runahead.probe import FAR, probe_rank, seconds_of

CHUNKS = "512:0,512:512,512:2048,1024:0,1024:1024,2048:0,2048:2048"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--chunks", default=CHUNKS)
    parser.add_argument("--cpu-time", action="store_true")
    options = parser.parse_args()
    chunks = [(int(n), int(before)) for n, before in (each.split(":") for each in options.chunks.split(","))]
    clock = time.thread_time if options.cpu_time else time.monotonic
    n_ctx = max(2 * FAR, *(n + before for n, before in chunks))
    with Model(options.model, n_threads=options.threads) as model, SharedCache(model, n_ctx, n_batch=n_ctx) as cache:
        native = cache._native
        of = probe_rank(native, FAR, FAR, clock)
        n_layers = native.n_layers()
        print(f"a rank: {','.join(f'{seconds:.3g}' for seconds in of)}")
        print("| tokens | before them | measured, s | cost model, s | ratio |")
        print("|---:|---:|---:|---:|---:|")
        for n, before in chunks:
            seconds = sum(seconds_of(native, n, before, clock))
            said = n * (of.first_s + (n_layers - 1) * of.token_s + of.last_s) + n_layers * of.pair_s * pairs(n, before)
            print(f"| {n} | {before} | {seconds:.3f} | {said:.3f} | {said / seconds:.2f} |")


if __name__ == "__main__":
    main()
