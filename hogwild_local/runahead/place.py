"""Where ranks run: which of them share a machine and its cores, and what each gets of them."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from ..engine.threads import default_threads, n_cores

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
GPU_MASKS = ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "GGML_VK_VISIBLE_DEVICES")
T = TypeVar("T")


class Place(NamedTuple):
    """Where a rank runs. host: its name, for people; machine: the same text for all ranks on one; cpus: those that the
    rank may use; gpus: what the environment says of those that it may."""

    host: str
    machine: str
    cpus: frozenset[int]
    gpus: tuple[str | None, ...] = ()


def here() -> Place:
    """That of this process."""
    host = socket.gethostname()
    try:
        machine = BOOT_ID.read_text(encoding="ascii").strip()  # two machines may have one name, and one several
    except OSError:
        machine = host
    cpus = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
    return Place(host, machine, frozenset(cpus), tuple(os.environ.get(name) for name in GPU_MASKS))


def chain(places: Sequence[Place], last: int) -> list[int]:
    """The order in which ranks are to hand on: those of one machine are neighbours, and the last one is the last."""
    machines = [place.machine for place in places]

    def key(rank: int) -> tuple[bool, int, bool]:
        return machines[rank] == machines[last], machines.index(machines[rank]), rank == last

    return sorted(range(len(places)), key=key)


def n_sharing(places: Sequence[Place], rank: int) -> int:
    """Ranks that may use cores of this one, which is one of them. A launcher may have given each cores of its own."""
    own = places[rank]
    return sum(place.machine == own.machine and bool(place.cpus & own.cpus) for place in places)


def n_on_machine(places: Sequence[Place], rank: int) -> int:
    """Ranks on the machine of this one, which is one of them: they share its memory."""
    return sum(place.machine == places[rank].machine for place in places)


def dealt(things: Sequence[T], index: int, n: int) -> Sequence[T]:
    """What the one of this index gets where things are dealt out in turn to n; of too few, several get the same."""
    return things[index::n] or things[index % len(things) :][:1] if things else things


def own_settings(
    settings: dict[str, Any], places: Sequence[Place], rank: int, gpus: Callable[[], list[str]]
) -> dict[str, Any]:
    """The settings of a model, as this rank loads it. gpus: gives names of those of its machine.

    A prompt of several ranks is computed with the rank's share of the cores, and all else, when the others wait, with
    as many as one process would use; threads that the user names are those of each rank. Servers, which serve one
    process, are dealt out to the ranks, and GPUs to those of one machine that have no server.
    """
    own = dict(settings)
    if settings["n_threads"] is None:
        share = max(1, n_cores() // n_sharing(places, rank))
        own["n_threads_chunk"] = min(default_threads(os.fsdecode(settings["path"])), share)
    servers = settings["rpc_servers"]
    own["rpc_servers"] = servers[rank :: len(places)]
    if own["rpc_servers"]:
        own["devices"] = []
    else:
        at = places[rank]
        others = range(len(servers), len(places))
        mates = [other for other in others if (places[other].machine, places[other].gpus) == (at.machine, at.gpus)]
        names = settings["devices"] or [name.encode() for name in gpus()]
        own["devices"] = dealt(names, mates.index(rank), len(mates))
    return own
