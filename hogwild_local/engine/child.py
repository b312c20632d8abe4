"""The child: objects of the native module by number, and calls of their methods that come through a pipe, those of a
lane one after the other. Number 0 is the native module itself."""

from __future__ import annotations

import collections
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

Inbox = queue.SimpleQueue[Any]


class Child:
    """Answers requests (see wire, EngineProcess.call), those of each lane in a thread. native: gives the native module,
    or what stands for it; it is called with the first request, so that its ImportError is an answer."""

    def __init__(self, out: BinaryIO, native: Callable[[], Any]) -> None:
        self._out, self._native = out, native
        self._objects: dict[int, Any] = {}
        self._log: collections.deque[tuple[int, str]] = collections.deque()
        self._lock = threading.Lock()  # of what is sent
        self.inboxes: list[Inbox] = [queue.SimpleQueue() for _ in wire.LANES]
        """Numbers of requests, and what is asked for; None: there will be no more."""

    def run(self, lane: int) -> None:
        """Until there are no more. Raises OSError where nobody reads the answers."""
        inbox = self.inboxes[lane]
        while (item := inbox.get()) is not None:
            asked, request = item
            self._reply(asked, request, Call(asked, inbox, self._answer))

    def _reply(self, asked: int, request: Sequence[Any], call: Call) -> None:
        number, method, arguments, new, wants_progress, wants_log, dropped = request
        set_log_hook(self._keep_line if wants_log else None)
        try:
            for gone in dropped:
                self._drop(gone)
            if wants_progress:
                arguments = (*arguments, call.progress)
            self._answer(asked, "ok", self._call(number, method, arguments, new))
        except errors.CacheFull as full:
            self._answer(asked, "full", (full.needed, full.free, str(full)))
        except errors.HogwildError as error:
            self._answer(asked, "error", wire.plain_error(error))
        except ImportError as error:
            self._answer(asked, "import", str(error))
        except Exception as error:
            text = f"in the engine's process: {type(error).__name__}: {error}"
            self._answer(asked, "error", ("HogwildError", text))

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

    def _answer(self, asked: int, kind: str, value: Any) -> None:
        with self._lock:
            lines = [self._log.popleft() for _ in range(len(self._log))]
            wire.send(self._out, wire.pack((asked, kind, value, lines)))

    def _keep_line(self, level: int, text: str) -> None:
        self._log.append((level, text))


class Call:
    """A call that is going on, and may ask whether to go on."""

    def __init__(self, asked: int, inbox: Inbox, answer: Callable[[int, str, Any], object]) -> None:
        self._asked, self._inbox, self._answer = asked, inbox, answer
        self._is_left = False

    def progress(self, part: Any) -> bool:
        """Whether to go on."""
        if self._is_left:
            return False
        self._answer(self._asked, "progress", part)
        item = self._inbox.get()
        if item is not None and item[0] == self._asked:
            return bool(item[1])
        self._inbox.put(item)  # of another call: the caller was interrupted, and waits no more
        self._is_left = True
        return False


def _native() -> Any:
    from . import native

    return native


def _read(inboxes: Sequence[Inbox], pipe: BinaryIO, leave: Callable[[], object]) -> None:
    """The pipe ends with the parent, and with it this process, whatever it is computing."""
    try:
        while (message := wire.receive(pipe)) is not None:
            lane, *item = message
            inboxes[lane].put(item)
        for inbox in inboxes:
            inbox.put(None)
        wire.receive(pipe)
    except (EOFError, OSError):
        leave()


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


def answer(pipe: BinaryIO, out: BinaryIO, native: Callable[[], Any], end: Callable[[], object] | None = None) -> None:
    """Answers what comes through the pipe, and ends this process with it. native: gives the native module, or what
    stands for it; end: called before that end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl+C is the parent's to handle
    child = Child(out, native)

    def leave() -> None:
        if end is not None:
            with contextlib.suppress(Exception):
                end()
        os._exit(0)

    def run(lane: int) -> None:
        with contextlib.suppress(OSError):  # the parent is gone
            child.run(lane)

    threading.Thread(target=_read, args=(child.inboxes, pipe, leave), daemon=True).start()
    threading.Thread(target=run, args=(wire.QUICK,), daemon=True).start()
    run(wire.PASSES)
    leave()
