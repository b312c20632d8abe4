"""glibc's malloc, told what a process is that runs for long and has many threads.

It gives each thread an arena, up to eight a core, and keeps in it what a thread has freed. Any thread of a run may
compute a pass, so each arena would grow to what a pass needs. And once a large buffer was freed, it takes the next ones
of that size from arenas too, each time from another place: graphs of passes come and go, and what they have touched
adds up. (tests/test_memory.py fixes the latter for what it measures.)"""

from __future__ import annotations

import contextlib
import ctypes

M_MMAP_THRESHOLD, M_ARENA_MAX = -3, -8
N_ARENAS = 2
LARGE = 1 << 20
"""Bytes from which on a buffer is a mapping of its own, and gone when it is freed."""


def settle_malloc() -> None:
    """Lets all threads that are started from now on share N_ARENAS, and large buffers lie alone. Elsewhere than with
    glibc it does nothing."""
    with contextlib.suppress(OSError, AttributeError, TypeError):  # there is no such function; TypeError: Windows
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(M_ARENA_MAX, N_ARENAS)
        mallopt(M_MMAP_THRESHOLD, LARGE)
