"""Freeing what a run holds, also when Ctrl+C comes in the middle of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def free_all(things: list[T], free: Callable[[T], object]) -> None:
    """Frees things from the last to the first, each forgotten only once it is free.

    An error of one does not keep the others; the first one is raised at the end. So is an interrupt, but for a second
    one, which is raised at once: then the next call goes on where this one was left. free() may be called twice for a
    thing.
    """
    interrupt: BaseException | None = None
    error: Exception | None = None
    while things:
        try:
            free(things[-1])
        except Exception as fault:
            error = error or fault
        except BaseException as fault:
            if interrupt is not None:
                raise
            interrupt = fault
            continue  # nobody knows whether it was freed: once more
        things.pop()
    if interrupt is not None:
        raise interrupt
    if error is not None:
        raise error
