"""How good partitions are that nobody searched for: interpolated ones (KVR-P), those of the cost model, and even ones
(KVR-E), against the best that a search finds (KVR-S); and what the cost model says of each.

    hogwild runahead tune -m model.gguf --runahead 2 --threads 1
    python benchmarks/runahead_partitions.py model.gguf [--ranks 2] [--threads 1] [--tokens 1536,3072] [--rounds 5]

The first command makes the table that is interpolated; --tokens: lengths that are not in it, or it would be no test.
Seconds from the call to the logits, medians of rounds, all partitions in turn in each round. The search and the rounds
take some minutes.
"""

from __future__ import annotations

import argparse
from statistics import median

from hogwild_local.runahead.balance import planned
from hogwild_local.runahead.kept import Kept, Table
from hogwild_local.runahead.partition import even, interpolated
from hogwild_local.runahead.probe import PROBED
from hogwild_local.runahead.ranked import started
from hogwild_local.runahead.simulation import ttft
from hogwild_local.runahead.tune import TunePlan, Tuner


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--tokens", type=lambda text: [int(n) for n in text.split(",")], default=[1536, 3072])
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    engine = started(options.ranks)
    model = engine.model(options.model, n_threads=options.threads)
    try:
        kinds = {"n_batch": 512, "type_k": "f16", "type_v": "f16", "attention": "auto"}
        cache = engine.cache(model, n_ctx=max(options.tokens) + 2 * PROBED, **kinds)
        kept = Kept(cache.group(), print)
        best, costs = kept.table().best(), kept.costs()
        if not best or costs is None or set(best) & set(options.tokens):
            parser.error(
                f"run hogwild runahead tune first, at other lengths than {options.tokens}: it has {list(best)}"
            )
        print("| tokens | | partition | s | of KVR-S | cost model, s |")
        print("|---:|---|---|---:|---:|---:|")
        for n in options.tokens:
            tuner = Tuner(cache, model.n_vocab, Table({}, lambda rows: None), costs, TunePlan((n,)))
            partitions = {
                "KVR-S": tuner.tune(n).partition,
                "KVR-P": interpolated(best, n),
                "cost model": planned(costs, n),
                "KVR-E": even(n, options.ranks),
            }
            rounds = [{kind: tuner.seconds(each) for kind, each in partitions.items()} for _ in range(options.rounds)]
            seconds = {kind: median(each[kind] for each in rounds) for kind in partitions}
            for kind, partition in partitions.items():
                chunks = " + ".join(map(str, partition))
                ratio = seconds[kind] / seconds["KVR-S"]
                print(f"| {n} | {kind} | {chunks} | {seconds[kind]:.3f} | {ratio:.3f} | {ttft(costs, partition):.3f} |")
    finally:
        model.close()


if __name__ == "__main__":
    main()
