"""Memory of a process with many threads: glibc's malloc gives each one an arena, up to eight a core, and keeps in it
what a thread has freed. Any thread of a run may compute a pass, so each arena would grow to what a pass needs."""

from __future__ import annotations

import contextlib
import ctypes

M_ARENA_MAX = -8
N_ARENAS = 2


def share_arenas() -> None:
    """Lets all threads that are started from now on share N_ARENAS. Elsewhere than with glibc it does nothing."""
    with contextlib.suppress(OSError, AttributeError, TypeError):  # there is no such function; TypeError: Windows
        ctypes.CDLL(None).mallopt(M_ARENA_MAX, N_ARENAS)
