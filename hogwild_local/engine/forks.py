"""What a fork() leaves behind: the child has our objects, but none of the threads that serve them."""

from __future__ import annotations

import os

from ..errors import Forked

MESSAGE = (
    "this {what} was made before fork(), which copies no threads: the engine cannot work in the child. Load the model "
    "in the child, or with isolate=True there, or start processes by multiprocessing's 'spawn'"
)

_n_forks = 0
_has_threads = _is_fork = False


class Origin:
    """Of which process an object is."""

    def __init__(self) -> None:
        self._n_forks = _n_forks

    @property
    def is_here(self) -> bool:
        return self._n_forks == _n_forks

    def check(self, what: str) -> None:
        """Raises Forked. To be called before a lock is taken: a thread that stayed behind may hold the child's copy."""
        if self._n_forks != _n_forks:
            raise Forked(MESSAGE.format(what=what))


def will_compute() -> None:
    """To be called before this process computes: OpenMP keeps threads from then on. Raises Forked in the child of a
    process that has computed: a pass of several threads would wait there for ever."""
    global _has_threads
    if _is_fork:
        raise Forked(MESSAGE.format(what="process"))
    _has_threads = True


def _after_fork() -> None:
    global _n_forks, _is_fork
    _n_forks += 1
    _is_fork = _is_fork or _has_threads


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
