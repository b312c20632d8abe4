"""Who was woken by a pass gets one turn to ask again before the next one begins: callers in step stay in step."""

from __future__ import annotations

import threading
from collections.abc import Iterable

PATIENCE_S = 1e-3
PATIENCE_SHARE = 0.05
"""Of the last pass. So long the next one waits for a caller, counted from the one that came before: where many are
awake, each needs the interpreter in turn."""


class Turns:
    """Callers are threads, by ident. One that did not come back in time is not waited for again until it was seen to
    come back in time. All methods but wait() are called with the merger's mutex held, wait() without."""

    def __init__(self) -> None:
        self.patience = PATIENCE_S
        self._away: set[int] = set()  # woken by the last pass, and not back
        self._late: set[int] = set()
        self._woken: dict[int, tuple[float, float]] = {}  # when, and until when it is in time
        self._came = threading.Lock()
        self._came.acquire()

    @property
    def n_awaited(self) -> int:
        return len(self._away - self._late)

    def woke(self, callers: Iterable[int], pass_s: float, now: float) -> None:
        """A pass of pass_s seconds has ended."""
        self._away = set(callers)
        self.patience = max(PATIENCE_S, PATIENCE_SHARE * pass_s)
        for caller in self._away:
            self._woken[caller] = (now, now + self.patience * len(self._away))

    def came(self, caller: int, now: float) -> None:
        _, until = self._woken.pop(caller, (now, now))
        if now <= until:
            self._late.discard(caller)
        if caller in self._away:
            self._away.discard(caller)
            if self._came.locked():
                self._came.release()

    def left(self, caller: int) -> None:
        """It is interrupted, and may never ask again."""
        self._away.discard(caller)

    def give_up(self) -> None:
        """Waits for nobody any more who is away now."""
        self._late |= self._away
        self._away = set()

    def wait_for_one(self) -> bool:
        """Whether somebody came within the patience."""
        return self._came.acquire(timeout=self.patience)
