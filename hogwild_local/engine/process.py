"""The parent's side of the pipe: starts the child, calls it, and tells what its end means."""

from __future__ import annotations

import collections
import contextlib
import itertools
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import weakref
from collections.abc import Callable, Sequence
from typing import IO, Any

from .. import errors
from . import forks, wire
from .link import Ends, Link
from .log import check_not_in_hook, log_hook, tell

GRACE_S = 3.0  # for a pass that is going on when the engine is closed; then the child is killed
MOST_LAST_WORDS = 600
CHILD_ENV = {"GGML_NO_BACKTRACE": "1"}


class Lane:
    """Calls that wait for each other, and numbers of objects that are dropped with the next one."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.dropped: collections.deque[int] = collections.deque()


class EngineProcess:
    """A child that an engine lives in. Calls from several threads wait for each other, if they are of one lane.

    It ends with close(), when this object is collected, or with this process. Ctrl+C ends the waiting of a call, not
    the call: the child goes on, and later calls wait for it.
    """

    def __init__(self, servers: Sequence[str] = (), start: Callable[[IO[bytes]], Ends] | None = None) -> None:
        """start: starts the child, whose stderr goes to a file; without it, a Python of its own."""
        self._origin = forks.Origin()
        self._servers = tuple(servers)
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115
        try:
            ends = (start or _start)(self._stderr)
        except BaseException:
            self._stderr.close()
            raise
        self._child = ends.child
        self._link = Link(ends)
        self._finalizer = weakref.finalize(self, _end, self._child, self._link, self._stderr, self._origin)
        self._lanes = [Lane() for _ in wire.LANES]
        self._death: str | None = None
        self._death_lock = threading.Lock()
        self.progress: Callable[[Any], object] | None = None
        """Called with what a decode() reports, where the child's has something to report (see runahead)."""
        self._numbers = itertools.count(1)

    @property
    def closed(self) -> bool:
        return not self._finalizer.alive

    @property
    def pid(self) -> int:
        return self._child.pid

    def close(self) -> None:
        """Ends the child, at the latest after GRACE_S, and waits for its end, also where another thread's call waits
        for the child. May be called twice."""
        if not self._origin.is_here:
            return  # the child is the parent's
        # Ctrl+C does not reach a thread: it interrupts our waiting, and the child ends nevertheless.
        end = threading.Thread(target=self._finalizer, name="hogwild engine's end")
        end.start()
        end.join()
        self._child.wait()

    def check(self, what: str) -> None:
        """Raises Closed, Forked, EngineDied; Busy inside a log hook."""
        check_not_in_hook(what)
        self._origin.check(what)
        if self.closed:
            raise errors.Closed(f"this {what} was closed")
        if self._death is not None:
            raise errors.EngineDied(self._death)

    def new_number(self) -> int:
        return next(self._numbers)

    def drop(self, number: int, lane: int) -> None:
        """The child frees the object with the lane's next call. Waits for nothing: it may be called at any point of any
        thread."""
        self._lanes[lane].dropped.append(number)

    def call(
        self,
        what: str,
        number: int,
        method: str,
        arguments: Sequence[Any],
        lane: int = wire.PASSES,
        new: int = 0,
        progress: Callable[[Any], object] | None = None,
    ) -> Any:
        """What the method of the child's object returns. what: the object's name, for Closed; new: the number of the
        object that the method makes. Raises what the child's call raised, EngineDied, Closed."""
        self.check(what)  # before the lock: a fork has it held for ever
        with self._lanes[lane].lock:
            self.check(what)
            waiting = self._lanes[lane].dropped
            dropped = list(waiting)
            asked = next(self._numbers)
            request = (number, method, tuple(arguments), new, progress is not None, log_hook() is not None, dropped)
            kind, value, lines = self._send(what, method, _packed(what, (lane, asked, request)), asked)
            for _ in dropped:  # only now: one that is sent again after an interrupt is none any more
                waiting.popleft()
            stopped: BaseException | None = None
            while kind == "progress":
                self._pass_on(lines)
                go_on = False
                try:
                    go_on = stopped is None and progress is not None and progress(value) is not False
                except BaseException as error:
                    stopped = error
                kind, value, lines = self._send(what, method, wire.pack((lane, asked, go_on)), asked)
        self._pass_on(lines)
        if stopped is not None:
            raise stopped
        if kind == "ok":
            return value
        if kind == "full":
            raise errors.CacheFull(*value)
        if kind == "import":
            raise ImportError(value)
        raise wire.error_of(*value)

    def _send(self, what: str, name: str, packed: bytes, number: int) -> Any:
        reply = self._link.ask(packed, number).get()
        if reply is None:
            if self.closed:  # by another thread, within this call
                raise errors.Closed(f"this {what} was closed")
            with self._death_lock:
                if self._death is None:
                    self._death = self._last_words(name)
            raise errors.EngineDied(self._death)
        return reply

    def _pass_on(self, lines: list[tuple[int, str]]) -> None:
        for level, text in lines:
            tell(level, text)

    def _last_words(self, name: str) -> str:
        try:
            code = self._child.wait(GRACE_S)
        except subprocess.TimeoutExpired:
            self._child.kill()
            code = self._child.wait()
        how = f"exit code {code}"
        if code < 0:
            with contextlib.suppress(ValueError):
                how = signal.Signals(-code).name
        self._stderr.seek(0)
        said = " ".join(self._stderr.read().decode("utf-8", errors="replace").split())
        said = re.sub(r"\S+/(?=[\w.-]+:\d+: )", "", said)[-MOST_LAST_WORDS:]  # where ggml was compiled is no help
        text = f"the engine's process ended ({how}) during '{name}'"
        if self._servers:
            text += f"; it used the RPC servers {', '.join(self._servers)}"
        if said:
            text += f". Its last words: {said}"
        if self._servers:
            return f"{text}. See whether the servers run (hogwild rpc-server), then make a new Hogwild"
        return f"{text}. Close this Hogwild and make a new one"


def _start(stderr: IO[bytes]) -> Ends:
    child = subprocess.Popen(
        python_command(f"from hogwild_local.engine.child import main; main({os.getpid()})"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=stderr,
        bufsize=0,
        env={**os.environ, **CHILD_ENV},
    )
    assert child.stdin is not None
    assert child.stdout is not None
    return Ends(child, child.stdin, child.stdout)  # type: ignore[arg-type]


def python_command(code: str) -> list[str]:
    """What runs code in a Python like this one. Raises DeviceError where there is no Python to start."""
    if getattr(sys, "frozen", False):
        raise errors.DeviceError(
            "a frozen application has no Python to start an engine's process with: sys.executable is the application. "
            "Load the model in this process (isolate=False, and without rpc)"
        )
    if not sys.executable:
        raise errors.DeviceError("this Python has no executable (sys.executable) to start an engine's process with")
    return [sys.executable, "-c", f"import sys; sys.path[:] = {sys.path!r}; {code}"]


def _packed(what: str, request: tuple[Any, ...]) -> bytes:
    try:
        return wire.pack(request)
    except ValueError:
        raise errors.InvalidArgument(
            f"an argument of the {what} cannot be passed to the engine's process: only numbers, texts, paths, "
            "lists and dicts can"
        ) from None


def _end(child: subprocess.Popen[bytes], link: Link, stderr: IO[bytes], origin: forks.Origin) -> None:
    """The child ends when it has answered what was asked before."""
    if not origin.is_here:
        return  # the child is the parent's
    link.end()
    try:
        child.wait(GRACE_S)
    except subprocess.TimeoutExpired:
        pass
    finally:  # Ctrl+C at interpreter exit too
        if child.poll() is None:
            child.kill()
            child.wait()
    stderr.close()
