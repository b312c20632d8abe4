"""Calls of the compiled library: statuses become exceptions here and nowhere else."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from typing import Any

from ... import errors
from ..handle import Handle
from .library import ffi, lib

# One class for every status of the C header but HW_OK and HW_ERROR_CACHE_FULL, which carries numbers.
ERROR_OF_STATUS: dict[int, type[errors.HogwildError]] = {
    lib.HW_ERROR_ARGUMENT: errors.InvalidArgument,
    lib.HW_ERROR_MODEL: errors.ModelError,
    lib.HW_ERROR_UNSUPPORTED: errors.UnsupportedModel,
    lib.HW_ERROR_BATCH: errors.BatchTooLarge,
    lib.HW_ERROR_MEMORY: errors.OutOfMemory,
    lib.HW_ERROR_CANCELLED: errors.Cancelled,
    lib.HW_ERROR_COMPUTE: errors.ComputeError,
    lib.HW_ERROR_DEVICE: errors.DeviceError,
    lib.HW_ERROR_BUSY: errors.Busy,
}

_ERROR_SIZE = 1024
_stopped = threading.local()
""".by: what a callback raised in the call that this thread is in."""


def keep_for_caller(kind: type[BaseException], exception: BaseException, trace: Any) -> None:
    """What cffi calls where a callback of ours raised: call() raises it when C has returned."""
    _stopped.by = exception


def call(function: Callable[..., int], *args: Any) -> None:
    """Calls a function of the library that returns a status. Raises the exception of the status, or what a callback
    raised meanwhile: it must not pass through C."""
    text = ffi.new("char[]", _ERROR_SIZE)
    _stopped.by = None
    status = function(*args, text, _ERROR_SIZE)
    if _stopped.by is not None:
        raise _stopped.by from None
    if status == lib.HW_OK:
        return
    message = ffi.string(text).decode("utf-8", errors="replace")
    if status == lib.HW_ERROR_CACHE_FULL:
        needed, free = map(int, re.findall(r"\d+", message)[:2])
        raise errors.CacheFull(needed, free, message)
    raise ERROR_OF_STATUS[status](message)


def new(kind: str, free: Any, function: Callable[..., int], *args: Any) -> Any:
    """The object that a function of the library makes. It is freed with its pointer, wherever Ctrl+C comes."""
    out = ffi.new(f"{kind} **")
    try:
        call(function, *args, out)
    except BaseException:
        if out[0]:
            free(out[0])
        raise
    return ffi.gc(out[0], free)


def text_of(function: Callable[..., int], *args: Any) -> str | None:
    """Calls a function that fills a buffer and returns the length, and gives it as much room as it needs."""

    def fill(buffer: Any, room: int) -> int:
        size = int(function(*args, buffer, room))
        return size if size < 0 else size + 1  # with the NUL behind it

    buffer, n = fill_array("char[]", 256, fill)
    return None if n < 0 else bytes(ffi.buffer(buffer, n - 1)).decode("utf-8", errors="replace")


def fill_array(kind: str, room: int, fill: Callable[[Any, int], int]) -> tuple[Any, int]:
    """An array that fill(array, room) has filled, and what it returned: how many there are, negative for an error."""
    while True:
        array = ffi.new(kind, room)
        n = fill(array, room)
        if n <= room:
            return array, n
        room = n


class Object(Handle):
    """What calls on a pointer have in common."""

    def _ask(self, function: Callable[..., Any], *args: Any) -> Any:
        """What a function of the library returns that cannot fail."""
        with self._lock:
            return function(self._use(), *args)

    def _do(self, function: Callable[..., int], *args: Any) -> None:
        with self._lock:
            call(function, self._use(), *args)

    def _int(self, function: Callable[..., int], *args: Any) -> int:
        """The int32 that a function of the library writes to its last argument."""
        out = ffi.new("int32_t *")
        self._do(function, *args, out)
        return int(out[0])
