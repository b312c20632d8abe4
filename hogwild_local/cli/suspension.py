"""Ctrl+Z while a run has the whole screen."""

from __future__ import annotations

import os
import signal
import sys
import threading
from contextlib import AbstractContextManager
from typing import Self


class Suspension(AbstractContextManager["Suspension"]):
    """Ctrl+Z only sets .asked: who has the terminal gives it back, and then calls now()."""

    def __init__(self) -> None:
        self.asked = False
        self._is_ours = False

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread() and hasattr(signal, "SIGTSTP"):
            self._is_ours = signal.getsignal(signal.SIGTSTP) is signal.SIG_DFL
        if self._is_ours:
            signal.signal(signal.SIGTSTP, self._ask)
        return self

    def __exit__(self, *_: object) -> None:
        if self._is_ours:
            signal.signal(signal.SIGTSTP, signal.SIG_DFL)

    def now(self) -> bool:
        """Stops the process, and returns when the shell lets it go on: whether it has the terminal then."""
        signal.signal(signal.SIGTSTP, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTSTP)
        self.asked = False
        signal.signal(signal.SIGTSTP, self._ask)
        return in_foreground(sys.stdout.fileno())

    def _ask(self, number: int, frame: object) -> None:
        self.asked = True


def in_foreground(terminal: int) -> bool:
    """Whether the terminal is this process's to read and to change; who runs in the background would be stopped for
    that. Raises OSError where there is none."""
    return os.isatty(terminal) and os.tcgetpgrp(terminal) == os.getpgrp()
