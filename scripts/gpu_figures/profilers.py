"""Time a kernel of one pass: by NVIDIA's nsys or ncu, or by the timestamps of ggml's Vulkan backend; elsewhere, time a
node of ggml's graph, which our engine measures."""

from __future__ import annotations

import csv
import re
import shutil
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .readers import rows

Figures = dict[str, Any]
Command = tuple[str, ...]
PASSES = 8  # that are looked at where that costs little
MOST = 24  # kernels that are told one by one
NS = {"ns": 1.0, "nsecond": 1.0, "us": 1e3, "usecond": 1e3, "ms": 1e6, "msecond": 1e6}  # as versions of ncu spell them
PLACES = ("/usr/local/cuda/bin", "/opt/nvidia/nsight-systems/*/bin", "/opt/nvidia/nsight-compute/*")


@dataclass(frozen=True)
class Profiler:
    """passes: how many it looks at; options: those of benchmarks/pass_profile.py."""

    name: str
    commands: Callable[[Command], tuple[Command, ...]]
    read: Callable[[str, Path], Figures]
    passes: int = 1
    options: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)


def of_nodes() -> Profiler:
    """Works everywhere: our engine measures."""
    return Profiler("nodes", lambda command: ((*command, "--profiler", "nodes", "--json", "{out}"),), rows, PASSES)


def of_device(backend: str) -> Iterator[Profiler]:
    """What tells the kernels of that backend and is here. Each may be refused all the same: in containers ncu is often
    not permitted, and an nsys without its other half cannot read what it recorded."""
    nsys, ncu = (find(name) if backend == "cuda" else None for name in ("nsys", "ncu"))
    if nsys:
        yield Profiler("nsys", lambda command: _nsys(nsys, command), nsys_rows, PASSES, ("--profiler", "cuda"))
    if ncu:
        # A CUDA graph would be one kernel; numbers are written as the locale has them.
        alone = {"GGML_CUDA_DISABLE_GRAPHS": "1", "LC_ALL": "C"}
        yield Profiler("ncu", lambda command: _ncu(ncu, command), ncu_rows, 1, ("--profiler", "cuda"), alone)
    if backend == "vulkan":
        timestamps = {"GGML_VK_PERF_LOGGER": "1"}
        yield Profiler("timestamps", lambda command: (command,), vulkan_rows, 1, environment=timestamps)


def find(name: str) -> str | None:
    """In PATH, or where NVIDIA's packages put it."""
    beside = (str(path / name) for place in PLACES for path in sorted(Path("/").glob(place.lstrip("/")))[::-1])
    return shutil.which(name) or next(filter(shutil.which, beside), None)


def table(tool: str, times: Mapping[str, tuple[int, float]], passes: int) -> Figures:
    """times: of a kernel, how often it ran and its nanoseconds, in all passes."""
    total = sum(ns for _, ns in times.values())
    ordered = sorted(times.items(), key=lambda item: -item[1][1])[:MOST]
    found = [
        {"kernel": name, "calls": count / passes, "us": ns / passes / 1e3, "share": ns / total if total else 0.0}
        for name, (count, ns) in ordered
    ]
    return {"tool": tool, "us": total / passes / 1e3, "kernels": len(times), "rows": found} if times else {}


# -- nsys ---------------------------------------------------------------------------------------------------------


def _nsys(nsys: str, command: Command) -> tuple[Command, ...]:
    record = (
        nsys, "profile", "--trace=cuda", "--sample=none", "--cpuctxsw=none", "--capture-range=cudaProfilerApi",
        "--capture-range-end=stop", "--cuda-graph-trace=node", "--force-overwrite=true", "-o", "{out}",
    )  # fmt: skip
    tell = (nsys, "stats", "--force-export=true", "--report", "cuda_gpu_kern_sum", "--format", "csv", "{out}.nsys-rep")
    return ((*record, *command), tell)


def nsys_rows(printed: str, file: Path) -> Figures:
    """The table of `nsys stats --report cuda_gpu_kern_sum --format csv`, among other lines."""
    found = _csv(printed, ("Total Time (ns)", "Instances", "Name"))
    return table(
        "nsys", _sums((row["Name"], int(row["Instances"]), float(row["Total Time (ns)"])) for row in found), PASSES
    )


# -- ncu ----------------------------------------------------------------------------------------------------------


def _ncu(ncu: str, command: Command) -> tuple[Command, ...]:
    options = ("--csv", "--print-units", "base", "--metrics", "gpu__time_duration.sum", "--clock-control", "none",
               "--profile-from-start", "off", "--target-processes", "all", "--log-file", "{out}")  # fmt: skip
    return ((ncu, *options, *command),)


def ncu_rows(printed: str, file: Path) -> Figures:
    """The rows that ncu writes as CSV: one for each metric of each launch of a kernel, among its own lines (==PROF==).
    A metric that the card does not know is n/a."""
    text = file.read_text(encoding="utf-8", errors="replace") if file.exists() else ""
    text = "".join(line for line in text.splitlines(keepends=True) if not line.startswith("=="))
    found = _csv(text, ("Kernel Name", "Metric Name", "Metric Unit", "Metric Value"))
    launches = (
        (row["Kernel Name"], 1, float(row["Metric Value"].replace(",", "")) * NS[row["Metric Unit"]])
        for row in found
        if row["Metric Name"] == "gpu__time_duration.sum" and row["Metric Unit"] in NS
    )
    return table("ncu", _sums(launches), 1)


def _sums(launches: Iterable[tuple[str, int, float]]) -> dict[str, tuple[int, float]]:
    """(kernel, how often, nanoseconds): a kernel may stand in several rows, one for each grid."""
    times: dict[str, tuple[int, float]] = defaultdict(lambda: (0, 0.0))
    for name, n, ns in launches:
        count, total = times[name]
        times[name] = (count + n, total + ns)
    return times


def _csv(text: str, columns: tuple[str, ...]) -> Iterator[dict[str, str]]:
    """Rows of the first table in a text whose header names these columns; an incomplete last one is left out."""
    lines = text.splitlines()
    for i, line in enumerate(lines):
        if all(column in line for column in columns):
            for row in csv.DictReader(lines[i:], strict=False):
                if any(row.get(column) is None for column in columns):
                    return
                yield row
            return


# -- Vulkan -------------------------------------------------------------------------------------------------------


def vulkan_rows(printed: str, file: Path) -> Figures:
    """What GGML_VK_PERF_LOGGER prints after each graph; the last one is that of the last pass."""
    last = printed.rsplit("Vulkan Timings:", 1)[-1] if "Vulkan Timings:" in printed else ""
    found = re.findall(r"^(.+): (\d+) x [\d.e+-]+ us = ([\d.e+-]+) us", last, re.MULTILINE)
    return table("ggml's Vulkan timestamps", {name: (int(n), float(us) * 1e3) for name, n, us in found}, 1)
