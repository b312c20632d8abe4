"""How long the event loop of a server would wait while many runs go on in its tasks: the longest, and usual times.

    python benchmarks/event_loop.py [model.gguf] [--tasks 50] [--workers 2] [--passes 256] [--every-ms 1]

All tasks begin at once; every other one is cancelled at a random moment. Beside them one task sleeps for --every-ms
again and again, and notes how much later it was woken; with no run beside it, it tells what the machine does. Without
a model, the embedded one: its passes are short, so most of the work is Python's, which is the worst case for a loop.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import random
from collections.abc import Awaitable
from time import perf_counter

from hogwild_local import Hogwild
from hogwild_local.engine.default_model import default_model_path


async def late_ms(every_s: float, beside: Awaitable[object]) -> list[float]:
    """How late a task was woken, each time, until the other one has ended."""
    others = asyncio.ensure_future(beside)
    late = []
    while not others.done():
        start = perf_counter()
        await asyncio.sleep(every_s)
        late.append((perf_counter() - start - every_s) * 1e3)
    await others
    return sorted(late)


async def task(hogwild: Hogwild, options: argparse.Namespace, seed: int) -> None:
    """One run; half of them are given up."""
    chance = random.Random(seed)
    sheet = hogwild.examples[seed % len(hogwild.examples)] if hogwild.examples else f"Question {seed}?"
    run = hogwild.agenerate(sheet, workers=options.workers, max_passes=options.passes, seed=seed)
    if seed % 2:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(run, chance.uniform(0.0, options.give_up_s))
    else:
        await run


async def measure(options: argparse.Namespace) -> None:
    with Hogwild(options.model or default_model_path(), n_ctx=options.ctx, trust=True) as hogwild:
        print("| beside | times | median ms | 99 % ms | longest ms |\n|---|---:|---:|---:|---:|")
        for name, beside in (
            ("nothing", asyncio.sleep(2.0)),
            (
                f"{options.tasks} runs",
                asyncio.gather(*(task(hogwild, options, seed) for seed in range(options.tasks))),
            ),
        ):
            late = await late_ms(options.every_ms / 1e3, beside)
            n = len(late)
            print(f"| {name} | {n} | {late[n // 2]:.2f} | {late[n * 99 // 100]:.2f} | {late[-1]:.2f} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?")
    parser.add_argument("--tasks", type=int, default=50)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--passes", type=int, default=256)
    parser.add_argument("--ctx", type=int, default=32768)
    parser.add_argument("--every-ms", type=float, default=1.0)
    parser.add_argument("--give-up-s", type=float, default=2.0)
    asyncio.run(measure(parser.parse_args()))


if __name__ == "__main__":
    main()
