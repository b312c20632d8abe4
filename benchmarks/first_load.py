"""What the trial of an unknown file costs its first load: seconds from the start of a process until the model is there,
with and without the trial, in turn, in each way to load one.

    python benchmarks/first_load.py model.gguf [--ways Model Hogwild run serve] [--rounds 9] [--cold]

Medians, and what the trial adds to them. The file is read before, so that it comes from the machine's memory; with
--cold the system is told to forget it before each load, so that it comes from the disk.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

LOADED = "tokens, "  # of the line that the commands write then
OF_ENGINE = "from hogwild_local import {0}; import sys; m = {0}({1}); print({2!r}, file=sys.stderr, flush=True)"


def commands(model: Path) -> dict[str, list[str]]:
    """Each says on stderr when it has loaded the model."""
    python, options = [sys.executable, "-P", "-c"], ["-m", str(model), "--ctx", "512"]
    hogwild = [*python, "from hogwild_local.cli.main import main; main()"]
    return {
        "Model": [*python, OF_ENGINE.format("Model", repr(str(model)), LOADED)],
        "Hogwild": [*python, OF_ENGINE.format("Hogwild", f"{str(model)!r}, n_ctx=512", LOADED)],
        "run": [*hogwild, "run", *options, "PROMPT"],
        "serve": [*hogwild, "serve", "--port", "0", *options],
    }


def load(command: list[str], is_tried: bool) -> float:
    """Seconds. Raises RuntimeError where the process ends before."""
    folder = tempfile.mkdtemp()
    environment = {**os.environ, "XDG_CACHE_HOME": folder, "HOGWILD_TRUST": "0" if is_tried else "1"}
    begin = time.perf_counter()
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                          env=environment, text=True) as process:  # fmt: skip
        assert process.stderr is not None
        said = []
        for line in process.stderr:
            said.append(line)
            if LOADED in line:
                break
        else:
            raise RuntimeError("".join(said))
        took = time.perf_counter() - begin
        process.kill()
    was_tried = any(Path(folder).rglob("tried/*"))
    shutil.rmtree(folder)
    assert was_tried == is_tried
    return took


def read(model: Path) -> None:
    with model.open("rb") as file:
        while file.read(1 << 24):
            pass


def forget(model: Path) -> None:
    with model.open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--ways", nargs="+", default=["Model", "Hogwild", "run", "serve"])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--cold", action="store_true")
    options = parser.parse_args()
    read(options.model)
    for way in options.ways:
        command = commands(options.model)[way]
        times: dict[bool, list[float]] = {True: [], False: []}
        for round_ in range(options.rounds):
            for is_tried in (round_ % 2 == 0, round_ % 2 == 1):
                if options.cold:
                    forget(options.model)
                times[is_tried].append(load(command, is_tried))
        tried, trusted = median(times[True]), median(times[False])
        print(f"{way:8} tried {tried:6.3f} s, trusted {trusted:6.3f} s: {tried - trusted:+.3f} s, "
              f"{(tried / trusted - 1) * 100:+.1f} %", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
