"""How many threads a model's passes get, and how long these wait for each other before they sleep."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import MutableMapping
from pathlib import Path

# Threads meet some hundred times a pass. A thread that reads less than this from memory in a pass is done with it in
# the time that the meetings cost.
BYTES_A_THREAD = 4 << 20

# Turns of libgomp's waiting loop. Its default is 300,000, some milliseconds at each meeting: where another process has
# taken the core of the thread that all wait for, they keep it from coming back. After this many, some ten microseconds,
# they sleep; most meetings of a pass are shorter.
SPIN_COUNT = "10000"


def default_threads(path: str | os.PathLike[str]) -> int:
    """As many as a pass of this model can use, at most one a core. path: its first GGUF file."""
    return max(1, min(n_cores(), _n_bytes(Path(path)) // BYTES_A_THREAD))


def n_cores() -> int:
    """The physical cores that this process may use: two threads on one core only wait for each other."""
    if not hasattr(os, "sched_getaffinity"):
        return os.cpu_count() or 1
    return max(1, len({_core_of(cpu) for cpu in os.sched_getaffinity(0)}))


def spin_shortly(environment: MutableMapping[str, str]) -> None:
    """To be called before libgomp is loaded, which reads the environment once. Leaves alone what the user has set."""
    if sys.platform == "linux" and not {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"} & set(environment):
        environment["GOMP_SPINCOUNT"] = SPIN_COUNT


def _n_bytes(path: Path) -> int:
    """Of all files of the model; 0 where there is none, which loading will say."""
    part = re.fullmatch(r"(.*)-00001-of-(\d{5})\.gguf", path.name)
    names = [path.name] if part is None else [f"{part[1]}-{i + 1:05}-of-{part[2]}.gguf" for i in range(int(part[2]))]
    try:
        return sum((path.parent / name).stat().st_size for name in names)
    except OSError:
        return 0


def _core_of(cpu: int) -> str:
    """The logical CPUs of its core, as Linux lists them; where it does not, each is a core of its own."""
    try:
        return Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list").read_text(encoding="ascii")
    except OSError:
        return str(cpu)
