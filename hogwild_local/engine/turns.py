"""Who was woken by a pass gets one turn to ask again before the next one begins: callers in step stay in step."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from threading import Thread

PATIENCE_S = 1e-3
PATIENCE_SHARE = 0.05
"""Of the last pass. So long the next one waits for a caller, counted from the one that came before: where many are
awake, each needs the interpreter in turn."""


class Turns:
    """Callers are threads; with each pass those that have ended are forgotten. One that did not come back in time is
    not waited for again until it was seen to come back in time. All methods but wait_for_one() are called with the
    merger's mutex held, that one without."""

    def __init__(self) -> None:
        self.patience = PATIENCE_S
        self._away: set[Thread] = set()  # woken by the last pass, and not back
        self._late: set[Thread] = set()
        self._in_time_until: dict[Thread, float] = {}  # of who was woken, and is not back
        self._came = threading.Lock()
        self._came.acquire()

    @property
    def n_awaited(self) -> int:
        return len(self._away - self._late)

    def woke(self, callers: Iterable[Thread], pass_s: float, now: float) -> None:
        """A pass of pass_s seconds has ended."""
        self._away = set(callers)
        self.patience = max(PATIENCE_S, PATIENCE_SHARE * pass_s)
        self._late = {caller for caller in self._late if caller.is_alive()}
        self._in_time_until = {caller: until for caller, until in self._in_time_until.items() if caller.is_alive()}
        for caller in self._away:
            self._in_time_until[caller] = now + self.patience * len(self._away)

    def came(self, caller: Thread, now: float) -> None:
        if now <= self._in_time_until.pop(caller, now):
            self._late.discard(caller)
        if caller in self._away:
            self._away.discard(caller)
            if self._came.locked():
                self._came.release()

    def left(self, caller: Thread) -> None:
        """It is interrupted, and may never ask again."""
        self._away.discard(caller)

    def give_up(self) -> None:
        """Waits for nobody any more who is away now."""
        self._late |= self._away
        self._away = set()

    def wait_for_one(self) -> bool:
        """Whether somebody came within the patience."""
        return self._came.acquire(timeout=self.patience)
