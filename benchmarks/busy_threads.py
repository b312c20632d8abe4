"""Threads on a machine that is not idle: milliseconds a pass by settings, quiet and beside one busy process.

    python benchmarks/busy_threads.py [model.gguf ...] [--workers 2] [--passes 40] [--rounds 6]
        [--settings default,300000,1000,passive,one]

Each setting has a process of its own (libgomp reads its environment once), and all take turns in each round, which
another one begins each time, first quiet, then beside a process that only counts. "default": what hogwild does by
itself; a number: GOMP_SPINCOUNT with a thread a core (300000 is libgomp's own); "passive": OMP_WAIT_POLICY; "one": one
thread. Median and mean of all passes; "of best": the median as a multiple of the best one in its column. Without
models: the embedded one.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
from contextlib import ExitStack
from functools import partial
from statistics import mean, median

WARM = 20  # an engine finds out within some passes that others take its cores, or no longer do


def serve(path: str, n_threads: int | None, n_workers: int) -> None:
    """Says how many threads there are; then, for every number of passes that is asked for, their seconds."""
    from hogwild_local import Model, SharedCache
    from hogwild_local.cli.measure import seconds_of

    with Model(path, n_threads=n_threads) as model, SharedCache(model, 1024) as cache:
        prompt = cache.block("prompt")
        cache.decode([([prompt], [1] * 64)])
        own = [cache.block(f"worker {i}") for i in range(n_workers)]
        views = [[prompt, *(other for other in own if other is not one), one] for one in own]
        print(model.n_threads, flush=True)
        for line in sys.stdin:
            for block in own:
                block.clear()
            step = partial(cache.decode, [(view, [7]) for view in views])
            times = [seconds_of(step) for _ in range(WARM + int(line))]
            print(json.dumps(times[WARM:]), flush=True)


class Setting:
    """A process that waits until it is asked for passes."""

    def __init__(self, name: str, model: str, n_workers: int) -> None:
        from hogwild_local.engine.threads import n_cores

        kept = {key: value for key, value in os.environ.items() if key not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
        if name == "passive":
            kept["OMP_WAIT_POLICY"] = "passive"
        elif name.isdigit():
            kept["GOMP_SPINCOUNT"] = name
        threads = {"default": "0", "one": "1"}.get(name, str(n_cores()))
        command = [sys.executable, __file__, "--serve", model, threads, str(n_workers)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=kept)
        self.n_threads = self.answer()

    def answer(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def passes(self, n: int) -> list[float]:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{n}\n")
        self.process.stdin.flush()
        seconds: list[float] = json.loads(self.answer())
        return seconds

    def close(self) -> None:
        self.process.communicate()


class Busy:
    """Another process that takes all of one core, while it is awake."""

    def __init__(self) -> None:
        self.process = subprocess.Popen([sys.executable, "-c", "while True: pass"])
        self.wake(False)

    def wake(self, awake: bool) -> None:
        self.process.send_signal(signal.SIGCONT if awake else signal.SIGSTOP)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()


def measure(model: str, options: argparse.Namespace) -> None:
    times: dict[tuple[str, bool], list[float]] = {}
    with ExitStack() as stack:
        settings = {name: Setting(name, model, options.workers) for name in options.settings}
        for setting in settings.values():
            stack.callback(setting.close)
        busy = Busy()
        stack.callback(busy.close)
        for i in range(options.rounds):
            names = options.settings[i % len(options.settings) :] + options.settings[: i % len(options.settings)]
            for awake in (False, True):
                busy.wake(awake)
                for name in names:
                    times.setdefault((name, awake), []).extend(settings[name].passes(options.passes))
                busy.wake(False)
    print(f"{model}, {options.workers} workers")
    print(f"{'setting':>10}{'threads':>9} |{'quiet':>9}{'mean':>9}{'of best':>9} |{'busy':>9}{'mean':>9}{'of best':>9}")
    best = {awake: min(median(times[name, awake]) for name in settings) for awake in (False, True)}
    for name, setting in settings.items():
        row = ""
        for awake in (False, True):
            of = times[name, awake]
            row += f" |{1e3 * median(of):9.2f}{1e3 * mean(of):9.2f}{median(of) / best[awake]:9.2f}"
        print(f"{name:>10}{setting.n_threads:>9}{row}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--passes", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument(
        "--settings", type=lambda text: text.split(","), default=["default", "300000", "1000", "passive", "one"]
    )
    options = parser.parse_args()
    if not options.models:
        from hogwild_local.engine.default_model import default_model_path

        options.models = [str(default_model_path())]
    for model in options.models:
        measure(model, options)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--serve"]:
        serve(sys.argv[2], int(sys.argv[3]) or None, int(sys.argv[4]))
    else:
        main()
