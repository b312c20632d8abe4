"""What a process of its own costs, and what an RPC server on this machine costs: milliseconds a pass, in turn.

    python benchmarks/isolation.py [model.gguf] [--workers 4] [--passes 200] [--rounds 4] [--rpc HOST:PORT]

A tiny model (python -m models tiny) shows the fixed cost. Medians of rounds; the first round is not counted.
"""

from __future__ import annotations

import argparse
from contextlib import ExitStack
from statistics import median
from typing import Any

from hogwild_local import Hogwild
from hogwild_local.engine.default_model import default_model_path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?")
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--passes", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rpc", default="")
    options = parser.parse_args()
    kinds: dict[str, dict[str, Any]] = {
        "this process, fused": {},
        "a process of its own, fused": {"isolate": True},
        "this process, ggml's attention": {"attention": "ggml"},
        "this process, composed": {"attention": "composed"},
    }
    if options.rpc:
        kinds["RPC server"] = {"rpc": options.rpc}
    times: dict[str, list[float]] = {kind: [] for kind in kinds}
    with ExitStack() as stack:
        model = options.model or default_model_path()
        engines = {
            kind: stack.enter_context(Hogwild(model, n_ctx=8192, n_threads=options.threads, **arguments))
            for kind, arguments in kinds.items()
        }
        for _ in range(options.rounds):
            for kind, engine in engines.items():
                prompt = engine.examples[0] if engine.examples else "Count."
                result = engine.generate(
                    prompt, workers=options.workers, seed=3, max_passes=options.passes, finisher=False
                )
                times[kind].append(result.timings.ms_per_pass)
    for kind, of_rounds in times.items():
        print(f"{kind:30} {median(of_rounds[1:] or of_rounds):8.2f} ms a pass")


if __name__ == "__main__":
    main()
