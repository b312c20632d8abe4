"""The native module and its objects as they look from outside of the process that holds them.

A proxy has the methods of what it stands for, so everything above native exists once.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from functools import partial
from typing import IO, Any

from ..errors import Closed
from . import wire
from .link import Ends
from .process import EngineProcess
from .views import Decoded, DecodeView


class Remote:
    """An object of the child. Dropped or closed, its number goes to the child with the next call: that takes no time,
    and nothing can interrupt it."""

    lane = wire.PASSES
    """Of its calls, and of the one that makes it."""

    def __init__(self, process: EngineProcess, number: int, what: str) -> None:
        self.place, self._number, self._what = process, number, what
        self._finalizer = weakref.finalize(self, process.drop, number, self.lane)

    @property
    def closed(self) -> bool:
        return not self._finalizer.alive or self.place.closed

    def close(self) -> None:
        self.place.drop(self._number, self.lane)
        self._finalizer.detach()

    def check_open(self) -> None:
        """Raises Closed, Forked, EngineDied."""
        if not self._finalizer.alive:
            raise Closed(f"this {self._what} was closed")
        self.place.check(self._what)

    def call(self, method: str, *arguments: Any) -> Any:
        """What the child's object returns. Raises what it raises, and as check_open()."""
        self.check_open()
        return self.place.call(self._what, self._number, method, arguments, self.lane)

    def make(self, kind: type[Remote], what: str, method: str, *arguments: Any) -> Any:
        """The proxy of an object that the child's object makes."""
        self.check_open()
        proxy = kind(self.place, self.place.new_number(), what)
        self.place.call(self._what, self._number, method, arguments, kind.lane, new=proxy._number)
        return proxy

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name.startswith("_"):
            raise AttributeError(name)
        return partial(self.call, name)


class RemoteCache(Remote):
    """The cache's decode() is the one call that names other objects, and that returns arrays."""

    def decode(self, views: Sequence[DecodeView]) -> list[Decoded]:
        rows = [
            tuple(view if view.sampler is None else view._replace(sampler=self._number_of(view.sampler)))
            for view in views
        ]
        return [
            Decoded(_floats(logits, view.n_outputs), _floats(logprobs), *chosen)
            for view, (logits, logprobs, *chosen) in zip(views, self._decoded(rows), strict=True)
        ]

    def _decoded(self, rows: list[tuple[Any, ...]]) -> Any:
        self.check_open()
        return self.place.call(self._what, self._number, "decode", (rows,), progress=self.place.progress)

    def _number_of(self, sampler: Remote) -> int:
        sampler.check_open()
        return sampler._number


def _floats(data: bytes | None, n_rows: int | None = None) -> Any:
    if data is None:
        return None
    import numpy as np

    array = np.frombuffer(bytearray(data), dtype=np.float32)
    return array if n_rows is None else array.reshape(n_rows, -1)


class RemoteSampler(Remote):
    """Where a pass uses it, its own calls wait for that pass."""

    lane = wire.QUICK


class RemoteModel(Remote):
    """Its process ends with it."""

    lane = wire.QUICK

    def close(self) -> None:
        self.place.close()

    def cache(self, *arguments: Any) -> RemoteCache:
        cache: RemoteCache = self.make(RemoteCache, "cache", "cache", *arguments)
        return cache

    def room(self, *arguments: Any) -> int:
        """After caches that were dropped are freed."""
        self.check_open()
        return int(self.place.call(self._what, self._number, "room", arguments, wire.PASSES))

    def sampler(self, *arguments: Any) -> RemoteSampler:
        sampler: RemoteSampler = self.make(RemoteSampler, "sampler", "sampler", *arguments)
        return sampler


class RemoteNative(Remote):
    """The native module of a new process. servers: the RPC servers that its end is blamed on; start: see
    EngineProcess."""

    def __init__(self, servers: Sequence[str], start: Callable[[IO[bytes]], Ends] | None = None) -> None:
        super().__init__(EngineProcess(servers, start), 0, "model")
        self._finalizer.detach()  # a module is not dropped

    def check_open(self) -> None:
        self.place.check(self._what)

    def NativeModel(self, settings: dict[str, Any], progress: Callable[[float], object] | None) -> RemoteModel:
        model = RemoteModel(self.place, self.place.new_number(), "model")
        self.place.call("model", 0, "NativeModel", (settings,), new=model._number, progress=progress)
        return model
