"""Run: what the user holds of a run in progress, an iterator that other threads may stop, cancel or close."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from types import TracebackType
from typing import Self

from .. import events as ev
from ..errors import InvalidArgument
from .loop import Loop


class Run:
    """A run in progress: iterate it for its events.

        with hogwild.stream("PROMPT") as run:
            for event in run: ...

    Leaving the for loop (break, an exception), the with block, or close() ends the run and frees what it
    holds; so does dropping the last reference. next(run) does not. stop(), cancel() and close() may be called
    from any thread and take effect within one pass, or one chunk of the prompt.
    """

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._events = loop.events()
        self._lock = threading.RLock()

    @property
    def workers(self) -> tuple[str, ...]:
        """All workers' names."""
        return self._loop.settings.names

    @property
    def done(self) -> bool:
        """True once the run has ended and holds nothing any more."""
        return self._loop.done

    @property
    def timings(self) -> ev.Timings:
        """Up to now."""
        return self._loop.timings()

    @property
    def usage(self) -> ev.Usage:
        """Up to now."""
        return self._loop.usage()

    def stop(self, worker: str) -> None:
        """Lets one worker end before the next pass; the others go on. Raises InvalidArgument for an unknown
        name."""
        if worker not in self.workers:
            raise InvalidArgument(f"worker must be one of {', '.join(self.workers)}, not {worker!r}")
        self._loop.stop_requests.add(worker)

    def cancel(self) -> None:
        """Ends the run early but in order: WorkerFinished and RunEnded, reason "cancelled", are its last
        events."""
        self._loop.cancelled = True

    def close(self) -> None:
        """Ends the run at once, without further events. Waits for a pass that another thread is in. May be
        called twice."""
        self._loop.cancelled = True
        with self._lock:
            try:
                self._events.close()
            except ValueError:
                return  # called inside a pass of this very thread (a signal handler): .cancelled ends it
            self._loop.close()

    def __next__(self) -> ev.Event:
        with self._lock:
            return next(self._events)

    def __iter__(self) -> Iterator[ev.Event]:
        try:
            while True:
                try:
                    event = next(self)
                except StopIteration:
                    return
                yield event
        finally:
            self.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
