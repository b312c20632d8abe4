"""An object of the compiled library as Python owns it: one call at a time, freed once."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from typing import Any

from .. import errors
from . import forks, log


def _free(lock: threading.RLock, release: Callable[[Any], None], pointer: Any, origin: forks.Origin) -> None:
    """At interpreter exit a daemon thread may be inside a call: wait for its end."""
    if origin.is_here:
        with lock:
            release(pointer)


class Handle:
    """An object of the library. Its calls wait for each other; close() waits for a call that is going on.

    Freed by close(), when collected, or at interpreter exit, whichever comes first; inside a log hook, when the call
    that the hook runs in has ended. release(pointer) is one call in C, which nothing interrupts, and may be repeated.
    """

    _what = "object"
    place: Any = None
    """The EngineProcess that it lives in; None: this process."""

    def __init__(self, pointer: Any, release: Callable[[Any], None]) -> None:
        self._pointer, self._release = pointer, release
        self._own_lock = threading.RLock()
        self._origin = forks.Origin()
        self._finalizer = weakref.finalize(self, _free, self._own_lock, release, pointer, self._origin)
        self._is_closed = False

    @property
    def closed(self) -> bool:
        # At interpreter exit only the finalizer knows, and a daemon thread goes on for a while.
        return self._is_closed or not self._finalizer.alive

    def close(self) -> None:
        """May be called twice, also where Ctrl+C interrupted the first call."""
        if self._origin.is_here:
            with self._lock:
                self._is_closed = True
                self._release(self._pointer)
                self._finalizer.detach()

    def check_open(self) -> None:
        """Raises Closed, Forked; Busy inside a log hook, where what has no status could not say so."""
        self._origin.check(self._what)
        log.check_not_in_hook(self._what)
        if self.closed:
            raise errors.Closed(f"this {self._what} was closed")

    @property
    def _lock(self) -> threading.RLock:
        """Raises Forked."""
        self._origin.check(self._what)
        return self._own_lock

    def _use(self) -> Any:
        """The pointer. To be called with the lock held. Raises as check_open()."""
        self.check_open()
        return self._pointer
