"""The engine whose prompts are prefilled by several ranks, as Hogwild takes an engine."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from ..engine.cache import SharedCache
from ..engine.model import Model
from ..engine.pipe import RemoteNative
from ..engine.protocols import Engine, native_engine
from ..engine.threads import default_threads
from ..errors import InvalidArgument
from ..options import MOST_BATCH
from .launch import starter


def started(n_ranks: int, hosts: Sequence[str] = ()) -> Engine:
    """Ranks that come with each model, and end with it. hosts: see starter(). Making a model raises RunaheadError, and
    EngineDied is what the death of a rank is to its users."""
    return replace(native_engine(), model=partial(_started_model, n_ranks, hosts), cache=_cache)


def _started_model(n_ranks: int, hosts: Sequence[str], path: Any, **options: Any) -> Model:
    _check(options)
    n_here = n_ranks if not hosts else 1
    remote = RemoteNative((), starter(n_ranks, hosts))
    try:
        return _model(remote, n_here, path, options)
    except BaseException:
        remote.place.close()
        raise


def of_launcher() -> Engine | None:
    """The engine of the last rank, where this process is one of several that an MPI launcher has started: the others
    help it, and do not return from here. None: it is the only one. Raises RunaheadError."""
    if n_launched() < 2:
        return None
    from .leader import Group, Leader
    from .mpi import MpiTransport
    from .rank import help_last

    transport = MpiTransport()
    if transport.size < 2:
        transport.end()
        return None
    if transport.rank < transport.size - 1:
        help_last(transport)
    n_here = transport.hosts.count(transport.hosts[-1])
    leader = Leader(Group(transport))
    return replace(native_engine(), model=partial(_launched_model, leader, n_here), cache=_cache)


def _launched_model(leader: Any, n_here: int, path: Any, **options: Any) -> Model:
    _check(options)
    return _model(leader, n_here, path, options)


def n_launched() -> int:
    """Processes that an MPI launcher has started together, as it says in the environment."""
    names = ("PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "PMIX_SIZE", "MPI_LOCALNRANKS")
    return max((int(value) for name in names if (value := os.environ.get(name, "")).isdigit()), default=1)


def _check(options: dict[str, Any]) -> None:
    if options.get("rpc"):
        raise InvalidArgument("rpc: a server serves one process, and with runahead there are several")


def _model(native: Any, n_here: int, path: Any, options: dict[str, Any]) -> Model:
    """Each rank has its share of the cores of its machine, unless told otherwise."""
    if options.get("n_threads") is None:
        options["n_threads"] = max(1, default_threads(os.fsdecode(path)) // n_here)
    return Model(path, **(options | {"isolate": False}), native=native)


def _cache(model: Model, **options: Any) -> SharedCache:
    """Prompts come whole to the ranks: they cut them."""
    return SharedCache(model, **(options | {"n_batch": max(options["n_batch"], MOST_BATCH)}))
