"""How long a prompt of several ranks would take where there are more of them, or other links: by the cost model of
docs/runahead.md, whose numbers are measured here with one process, or given.

    python benchmarks/runahead_simulation.py model.gguf [--threads 1] [--tokens 4096,8192] [--ranks 4,8,16]
        [--gbit 10,100] [--latency-us 50] [--speed 1,50] [--costs FIRST,TOKEN,LAST,PAIR]
    python benchmarks/runahead_simulation.py model.gguf --interpolate 1024,4096 [--tokens 2048,8192] ...

The second one: how much longer it takes than with the best partition, where that is interpolated from those of two
other lengths, in three ways, or even. All ranks are alike. --speed: as if each computed so many times as fast as what
was measured, as a GPU does. --costs: these seconds, the fields of RankCosts, instead of a measurement; the model then
says only how much travels.
"""

from __future__ import annotations

import argparse
import itertools
import math

from hogwild_local import Model, SharedCache
from hogwild_local.runahead.balance import planned
from hogwild_local.runahead.costs import Costs, Link, RankCosts
from hogwild_local.runahead.partition import even, interpolated, of_shares
from hogwild_local.runahead.probe import FAR, probe_rank
from hogwild_local.runahead.simulation import simulate, ttft


def numbers(text: str) -> list[float]:
    return [float(part) for part in text.split(",")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--tokens", type=numbers, default=[4096, 8192])
    parser.add_argument("--ranks", type=numbers, default=[4, 8, 16])
    parser.add_argument("--gbit", type=numbers, default=[10, 100])
    parser.add_argument("--latency-us", type=float, default=50)
    parser.add_argument("--speed", type=numbers, default=[1, 50])
    parser.add_argument("--costs", type=numbers)
    parser.add_argument("--interpolate", type=numbers)
    options = parser.parse_args()
    with Model(options.model, n_threads=options.threads) as model, SharedCache(model, 2 * FAR) as cache:
        native = cache._native
        layers = [native.layer_bytes(layer, 1) for layer in range(native.n_layers())]
        measured = RankCosts(*options.costs) if options.costs else probe_rank(native, FAR, cache.n_batch)
    print(f"a rank: {','.join(f'{seconds:.3g}' for seconds in measured)}; bytes of a token: {sum(layers)}")
    if options.interpolate:
        link = Link(1e-6 * options.latency_us, 1e9 / 8 * options.gbit[0])
        all_ranks = [Costs([measured] * n, [link] * n, layers) for n in map(int, options.ranks)]
        interpolate([int(n) for n in options.interpolate], [int(n) for n in options.tokens], all_ranks)
        return
    print(
        "| speed | tokens | Gbit/s | ranks | one rank, s | KVR, s | even chunks, s | TSP, s | TSP / KVR | even / KVR |"
    )
    print("|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|")
    for speed, n, gbit, n_ranks in itertools.product(options.speed, options.tokens, options.gbit, options.ranks):
        rank = RankCosts(*(seconds / speed for seconds in measured))
        link = Link(1e-6 * options.latency_us, 1e9 / 8 * gbit)
        costs = Costs([rank] * int(n_ranks), [link] * int(n_ranks), layers)
        print(row(costs, int(n), f"{speed:g} | {n:g} | {gbit:g}"))


def row(costs: Costs, n: int, begin: str) -> str:
    n_ranks = len(costs.ranks)
    [alone] = simulate(Costs(costs.ranks[:1], costs.links[:1], costs.layers), (n,))
    equal = even(n, n_ranks)
    passes = [
        simulate(costs, planned(costs, n)),
        simulate(costs, equal),
        simulate(costs, equal, method="all-gather"),
    ]
    runahead_s, even_s, gathered_s = (traces[-1].ended_s for traces in passes)
    seconds = " | ".join(f"{each:.3f}" for each in (alone.ended_s, runahead_s, even_s, gathered_s))
    return f"| {begin} | {n_ranks} | {seconds} | {gathered_s / runahead_s:.2f} | {even_s / runahead_s:.2f} |"


def interpolate(known: list[int], tokens: list[int], of_ranks: list[Costs]) -> None:
    print("| ranks | tokens | linear in log n | linear in n | shares of the nearest length | even chunks |")
    print("|---:|---:|---:|---:|---:|---:|")
    for costs in of_ranks:
        n_ranks = len(costs.ranks)
        best = {n: planned(costs, n) for n in known}
        a, b = ([chunk / n for chunk in best[n]] for n in known)
        for n in tokens:
            part = (n - known[0]) / (known[1] - known[0])
            line = of_shares([x + part * (y - x) for x, y in zip(a, b, strict=True)], n)
            near = of_shares(best[min(known, key=lambda other: abs(math.log(other / n)))], n)
            best_s = ttft(costs, planned(costs, n))
            ways = (interpolated(best, n), line, near, even(n, n_ranks))
            longer = " | ".join(f"{100 * ttft(costs, each) / best_s - 100:.1f} %" for each in ways)
            print(f"| {n_ranks} | {n} | {longer} |")


if __name__ == "__main__":
    main()
