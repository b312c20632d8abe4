"""The engine whose prompts are prefilled by several ranks, as Hogwild takes an engine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from ..engine.cache import SharedCache
from ..engine.devices import Device, devices_of
from ..engine.model import Model
from ..engine.pipe import RemoteNative
from ..engine.protocols import Engine, native_engine
from ..engine.rpc import parse_servers
from ..options import MOST_BATCH
from .costs import Costs, of_plain
from .launch import starter
from .partition import Partition
from .routes import Method
from .slow_link import Limits
from .transport import PassTrace, as_trace


def started(n_ranks: int, hosts: Sequence[str] = ()) -> Engine:
    """Ranks that come with each model, and end with it. hosts: see starter(). Making a model raises RunaheadError, and
    EngineDied is what the death of a rank is to its users."""
    return replace(native_engine(), model=partial(_started_model, n_ranks, hosts), cache=_cache)


def of_ranks(leader: Any) -> Engine:
    """Ranks that are there already. leader: what stands for the native module."""
    return replace(native_engine(), model=partial(_model, leader), cache=_cache)


class RankedModel(Model):
    """A Model that each of several ranks has."""

    def devices_of_ranks(self) -> list[tuple[str, list[Device]]]:
        """Of each rank: its host, and what of the model lies on which device there."""
        native: Any = self._native
        return [(host, devices_of(rows)) for host, rows in native.placements()]


def _started_model(n_ranks: int, hosts: Sequence[str], path: Any, **options: Any) -> Model:
    remote = RemoteNative(parse_servers(options.get("rpc", "")), starter(n_ranks, hosts))
    try:
        return _model(remote, path, **options)
    except BaseException:
        remote.place.close()
        raise


def _model(native: Any, path: Any, **options: Any) -> RankedModel:
    return RankedModel(path, **(options | {"isolate": False}), native=native)


class RankedCache(SharedCache):
    """A SharedCache of several ranks."""

    def watch(self, progress: Callable[[tuple[list[int], int]], object] | None) -> None:
        """Lets progress be called while a prompt is computed: see LeaderCache."""
        native: Any = self._native
        (native.place or native).progress = progress

    def method(self, name: Method) -> None:
        """How long prompts are computed from now on. Raises InvalidArgument."""
        self._native.method(name)  # type: ignore[attr-defined]

    def group(self) -> dict[str, Any]:
        """What measurements of these ranks are of (see Kept), as plain data."""
        return self._native.group()  # type: ignore[attr-defined,no-any-return]

    def cut_as(self, partition: Partition | None) -> None:
        """Lets prompts of so many tokens be cut so, whatever is known of others; None: as before. Raises
        InvalidArgument."""
        self._native.cut_as(None if partition is None else list(partition))  # type: ignore[attr-defined]

    def limit_links(self, limits: Limits | None) -> None:
        """Lets keys and values go between ranks as over such links from now on; None: over those there are."""
        self._native.limit(None if limits is None else tuple(limits))  # type: ignore[attr-defined]

    def probed(self) -> Costs | None:
        """What prompts cost, measured now by small passes; later prompts are cut by it where there is no table. None:
        too few cells are free."""
        rows = self._change(self._native.probed)  # type: ignore[attr-defined]
        return None if rows is None else of_plain(rows)

    def ranks(self) -> list[PassTrace]:
        """What each rank did for the last prompt; none: it was not for several."""
        return [as_trace(rows) for rows in self._native.traces()]  # type: ignore[attr-defined]


def _cache(model: Model, **options: Any) -> RankedCache:
    """Prompts come whole to the ranks: they cut them."""
    return RankedCache(model, **(options | {"n_batch": max(options["n_batch"], MOST_BATCH)}))
