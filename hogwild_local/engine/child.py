"""The child: objects of the native module by number, and calls of their methods that come through a pipe, one after the
other. Number 0 is the native module itself."""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, BinaryIO

from .. import errors
from . import wire
from .handle import Handle
from .log import set_log_hook
from .views import DecodeView


class Child:
    """Answers requests (see EngineProcess.call) with (kind, value, log lines)."""

    def __init__(self, inbox: queue.SimpleQueue[Any], out: BinaryIO, native: Callable[[], Any]) -> None:
        self._inbox, self._out, self._native = inbox, out, native
        self._objects: dict[int, Any] = {}
        self._log: list[tuple[int, str]] = []

    def run(self) -> None:
        while True:
            number, method, arguments, new, wants_progress, wants_log, dropped = self._inbox.get()
            set_log_hook(self._keep_line if wants_log else None)
            try:
                for gone in dropped:
                    self._drop(gone)
                if wants_progress:
                    arguments = (*arguments, self._progress)
                self._answer("ok", self._call(number, method, arguments, new))
            except errors.CacheFull as full:
                self._answer("full", (full.needed, full.free, str(full)))
            except errors.HogwildError as error:
                self._answer("error", wire.plain_error(error))
            except ImportError as error:
                self._answer("import", str(error))
            except Exception as error:
                self._answer("error", ("HogwildError", f"in the engine's process: {type(error).__name__}: {error}"))

    def _call(self, number: int, method: str, arguments: Sequence[Any], new: int) -> Any:
        """What the method returns; an object is kept under the number that the parent has chosen for it."""
        if method == "decode":
            arguments = ([self._view(row) for row in arguments[0]], *arguments[1:])
        value = getattr(self._objects[number] if number else self._native(), method)(*arguments)
        if isinstance(value, Handle):
            self._objects[new] = value
            return None
        return [tuple(row) for row in value] if method == "decode" else value

    def _view(self, row: tuple[Any, ...]) -> DecodeView:
        view = DecodeView(*row)
        return view if view.sampler is None else view._replace(sampler=self._objects[view.sampler])

    def _drop(self, number: int) -> None:
        """The number may be one that nothing came to be."""
        thing = self._objects.pop(number, None)
        if thing is not None:
            thing.close()

    def _answer(self, kind: str, value: Any) -> None:
        lines, self._log = self._log, []
        wire.send(self._out, wire.pack((kind, value, lines)))

    def _keep_line(self, level: int, text: str) -> None:
        self._log.append((level, text))

    def _progress(self, part: Any) -> bool:
        """The parent answers each report: whether to go on."""
        self._answer("progress", part)
        return bool(self._inbox.get())


def _native() -> Any:
    """Loaded with the first call, so that its ImportError is an answer."""
    from . import native

    return native


def _read(inbox: queue.SimpleQueue[Any], pipe: BinaryIO, leave: Callable[[], object] | None) -> None:
    """The pipe ends with the parent, and with it this process, whatever it is computing."""
    try:
        while True:
            inbox.put(wire.receive(pipe))
    except (EOFError, OSError):
        if leave is not None:
            with contextlib.suppress(Exception):
                leave()
        os._exit(0)


def _watch(parent: int) -> None:
    """A fork of the parent may hold the pipe open after it has died."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(0)


def main(parent: int) -> None:
    pipe, out = os.fdopen(os.dup(0), "rb", buffering=0), os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)  # what libraries print must not come between the messages
    if os.name == "posix":
        threading.Thread(target=_watch, args=(parent,), daemon=True).start()
    answer(pipe, out, _native)


def answer(pipe: BinaryIO, out: BinaryIO, native: Callable[[], Any], leave: Callable[[], object] | None = None) -> None:
    """Answers what comes through the pipe, and ends this process with it. native: gives the native module, or what
    stands for it; leave: called before that end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl+C is the parent's to handle
    inbox: queue.SimpleQueue[Any] = queue.SimpleQueue()
    threading.Thread(target=_read, args=(inbox, pipe, leave), daemon=True).start()
    try:
        Child(inbox, out, native).run()
    except OSError:  # the parent is gone
        os._exit(0)
