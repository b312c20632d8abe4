"""Where llama.cpp's log lines go. It can be said before the compiled library is loaded."""

from __future__ import annotations

import threading
from collections.abc import Callable

from ..errors import Busy

INFO = 2
"""A log line's level, in ggml's count."""

LogHook = Callable[[int, str], object]

_hook: LogHook | None = None
_switch: Callable[[bool], None] | None = None


class _OfThread(threading.local):
    is_in_hook = False


_of_thread = _OfThread()


def set_log_hook(hook: LogHook | None) -> None:
    """Sends llama.cpp's log lines of our calls to hook(level, text); None: quiet.

    The hook runs in the middle of a call: what it asks of this library raises Busy, and what it closes is freed when
    that call has ended.
    """
    global _hook
    _hook = hook
    if _switch is not None:
        _switch(hook is not None)


def log_hook() -> LogHook | None:
    """What set_log_hook was given."""
    return _hook


def tell(level: int, text: str) -> None:
    """A line for the hook."""
    hook = _hook
    if hook is not None:
        _of_thread.is_in_hook = True
        try:
            hook(level, text)
        finally:
            _of_thread.is_in_hook = False


def check_not_in_hook(what: str) -> None:
    """Raises Busy."""
    if _of_thread.is_in_hook:
        raise Busy(f"a log hook must not use the {what}: it runs in the middle of a call")


def connect(switch: Callable[[bool], None]) -> None:
    """For the module that has the library: switch(whether lines are wanted) is called now and at each change."""
    global _switch
    _switch = switch
    switch(_hook is not None)
