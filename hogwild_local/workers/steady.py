"""What many may do at the same time, and what one does while none of them is at it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic


class Steady:
    """with steady.kept(): things stay as they are; with steady.changed(): nobody relies on that. Who wants to change
    goes before those who come later."""

    def __init__(self) -> None:
        self._turn = threading.Condition()
        self._n_inside = self._n_waiting = 0

    @contextmanager
    def kept(self) -> Iterator[None]:
        with self._turn:
            while self._n_waiting:
                self._turn.wait()
            self._n_inside += 1
        try:
            yield
        finally:
            with self._turn:
                self._n_inside -= 1
                self._turn.notify_all()

    @contextmanager
    def changed(self, most_s: float) -> Iterator[bool]:
        """False: others were inside for so long."""
        end_s = monotonic() + most_s
        with self._turn:
            self._n_waiting += 1
            try:
                while self._n_inside and monotonic() < end_s:
                    self._turn.wait(max(0.0, end_s - monotonic()))
                yield not self._n_inside
            finally:
                self._n_waiting -= 1
                self._turn.notify_all()
