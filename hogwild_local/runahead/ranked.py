"""The engine whose prompts are prefilled by several ranks, as Hogwild takes an engine."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
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
from .partition import Partition
from .routes import Method
from .slow_link import Limits
from .transport import PassTrace, as_trace


def started(n_ranks: int, hosts: Sequence[str] = ()) -> Engine:
    """Ranks that come with each model, and end with it. hosts: see starter(). Making a model raises RunaheadError, and
    EngineDied is what the death of a rank is to its users."""
    return replace(native_engine(), model=partial(_started_model, n_ranks, hosts), cache=_cache)


def _started_model(n_ranks: int, hosts: Sequence[str], path: Any, **options: Any) -> Model:
    _check(options)
    remote = RemoteNative((), starter(n_ranks, hosts))
    try:
        return _model(remote, 1 if hosts else n_ranks, path, **options)
    except BaseException:
        remote.place.close()
        raise


def of_ranks(leader: Any, n_here: int) -> Engine:
    """Ranks that are there already. leader: what stands for the native module; n_here: how many are on this machine."""
    return replace(native_engine(), model=partial(_model, leader, n_here), cache=_cache)


def _check(options: dict[str, Any]) -> None:
    if options.get("rpc"):
        raise InvalidArgument("rpc: a server serves one process, and ranks (runahead) are several")


def _model(native: Any, n_here: int, path: Any, **options: Any) -> Model:
    """Each rank has its share of the cores of its machine, unless told otherwise."""
    _check(options)
    if options.get("n_threads") is None:
        options["n_threads"] = max(1, default_threads(os.fsdecode(path)) // n_here)
    return Model(path, **(options | {"isolate": False}), native=native)


class RankedCache(SharedCache):
    """A SharedCache of several ranks."""

    def watch(self, progress: Callable[[tuple[list[int], int]], object] | None) -> None:
        """Lets progress be called while a prompt is computed: see LeaderCache."""
        native: Any = self._native
        (native.place or native).progress = progress

    def method(self, name: Method) -> None:
        """How long prompts are computed from now on. Raises InvalidArgument."""
        self._native.method(name)  # type: ignore[attr-defined]

    def cut_as(self, partition: Partition | None) -> None:
        """Lets prompts of so many tokens be cut so, whatever is known of others; None: as before. Raises
        InvalidArgument."""
        self._native.cut_as(None if partition is None else list(partition))  # type: ignore[attr-defined]

    def limit_links(self, limits: Limits | None) -> None:
        """Lets keys and values go between ranks as over such links from now on; None: over those there are."""
        self._native.limit(None if limits is None else tuple(limits))  # type: ignore[attr-defined]

    def ranks(self) -> list[PassTrace]:
        """What each rank did for the last prompt; none: it was not for several."""
        return [as_trace(rows) for rows in self._native.traces()]  # type: ignore[attr-defined]


def _cache(model: Model, **options: Any) -> RankedCache:
    """Prompts come whole to the ranks: they cut them."""
    return RankedCache(model, **(options | {"n_batch": max(options["n_batch"], MOST_BATCH)}))
