"""Messages between a process and the child that its engine lives in: a length, then marshalled plain data.

    request     lane, number of the request, what is asked for (EngineProcess.call)
    reply             number of the request, kind, value, log lines

A reply of the kind "progress" has another request of the same number for an answer: whether to go on. A request None is
the last one.

marshal, not pickle: the same Python is at both ends, and it can carry nothing but numbers, texts, bytes (an array of
numpy becomes its bytes), lists, tuples, dicts and None.
"""

from __future__ import annotations

import marshal
import os
import struct
from typing import Any, BinaryIO

from .. import errors

LENGTH = struct.Struct("<Q")
PASSES, QUICK = LANES = range(2)
"""Calls of a lane are answered one after the other; those of the quick one need no cache, and wait for no pass."""


def pack(message: Any) -> bytes:
    """Raises ValueError for what is no plain data."""
    data = marshal.dumps(message)
    return LENGTH.pack(len(data)) + data


def send(file: BinaryIO, packed: bytes) -> None:
    """file: unbuffered. Raises OSError where nobody reads any more."""
    view = memoryview(packed)
    while view:
        view = view[os.write(file.fileno(), view) :]


def receive(file: BinaryIO) -> Any:
    """Raises EOFError where the other end is closed, or ended within a message."""
    return marshal.loads(_exactly(file, LENGTH.unpack(_exactly(file, LENGTH.size))[0]))


def plain_error(error: BaseException) -> tuple[str, str]:
    """An error as plain data: the name of one of ours, and its text."""
    is_ours = isinstance(error, errors.HogwildError)
    return type(error).__name__ if is_ours else errors.HogwildError.__name__, str(error)


def error_of(name: str, text: str) -> errors.HogwildError:
    """What plain_error() was made of. CacheFull is made of numbers, not of a text: here it is a HogwildError."""
    kind = errors.HogwildError if name == errors.CacheFull.__name__ else getattr(errors, name)
    return kind(text)


def _exactly(file: BinaryIO, n: int) -> bytearray:
    data = bytearray()
    while len(data) < n:
        piece = os.read(file.fileno(), min(n - len(data), 1 << 20))
        if not piece:
            raise EOFError("the other process closed the pipe")
        data += piece
    return data
