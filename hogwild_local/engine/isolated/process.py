"""The parent's side of the pipe: starts the child, calls it, and tells what its end means."""

from __future__ import annotations

import contextlib
import os
import queue
import re
import signal
import subprocess
import sys
import tempfile
import threading
import weakref
from collections.abc import Callable, Sequence
from typing import IO, Any

from ... import errors
from ..native import log_hook
from . import wire

GRACE_S = 3.0  # for a pass that is going on when the engine is closed; then the child is killed
MOST_LAST_WORDS = 600


class EngineProcess:
    """A child that an engine lives in. Calls from several threads wait for each other.

    It ends with close(), when this object is collected, or with this process. Ctrl+C ends the waiting of a call, not
    the call: the child goes on, and later calls wait for it.
    """

    def __init__(self, servers: Sequence[str] = ()) -> None:
        if not sys.executable:
            raise errors.DeviceError("this Python has no executable (sys.executable) to start an engine's process with")
        self._servers = tuple(servers)
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115
        code = f"import sys; sys.path[:] = {sys.path!r}; from hogwild_local.engine.isolated.child import main; "
        code += f"main({os.getpid()})"
        self._child = subprocess.Popen(
            [sys.executable, "-c", code],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            bufsize=0,
            env={**os.environ, "GGML_NO_BACKTRACE": "1"},
        )
        self._requests: queue.SimpleQueue[tuple[bytes, queue.SimpleQueue[Any]] | None] = queue.SimpleQueue()
        threading.Thread(
            target=_exchange, args=(self._child, self._requests), daemon=True, name="hogwild engine"
        ).start()
        self._finalizer = weakref.finalize(self, _end, self._child, self._requests, self._stderr)
        self._lock = threading.RLock()
        self._death: str | None = None

    @property
    def closed(self) -> bool:
        return not self._finalizer.alive

    @property
    def pid(self) -> int:
        """For tests."""
        return self._child.pid

    def close(self) -> None:
        """Ends the child, at the latest after GRACE_S, and waits for its end. May be called twice."""
        self._finalizer()

    def check(self, what: str) -> None:
        """Raises Closed, EngineDied."""
        if self.closed:
            raise errors.Closed(f"this {what} was closed")
        if self._death is not None:
            raise errors.EngineDied(self._death)

    def call(self, what: str, name: str, *arguments: Any, progress: Callable[[float], object] | None = None) -> Any:
        """What the child's request `name` returns. what: the object that it is about, for Closed. Raises what the
        child's call raised, EngineDied, Closed."""
        try:
            request = wire.pack((name, arguments, log_hook() is not None))
        except ValueError:
            raise errors.InvalidArgument(
                f"an argument of the {what} cannot be passed to the engine's process: only numbers, texts, paths, "
                "lists and dicts can"
            ) from None
        with self._lock:
            self.check(what)
            kind, value, lines = self._send(what, name, request)
            stopped: BaseException | None = None
            while kind == "progress":
                self._pass_on(lines)
                go_on = False
                try:
                    go_on = stopped is None and progress is not None and progress(value) is not False
                except BaseException as error:
                    stopped = error
                kind, value, lines = self._send(what, name, wire.pack(go_on))
        self._pass_on(lines)
        if kind == "ok":
            return value
        if stopped is not None:
            raise stopped
        if kind == "full":
            raise errors.CacheFull(*value)
        raise getattr(errors, value[0])(value[1])

    def _send(self, what: str, name: str, packed: bytes) -> Any:
        replies: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._requests.put((packed, replies))
        reply = replies.get()
        if reply is None:
            if self.closed:  # by another thread, within this call
                raise errors.Closed(f"this {what} was closed")
            self._death = self._last_words(name)
            raise errors.EngineDied(self._death)
        return reply

    def _pass_on(self, lines: list[tuple[int, str]]) -> None:
        hook = log_hook()
        if hook is not None:
            for level, text in lines:
                hook(level, text)

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


def _exchange(child: subprocess.Popen[bytes], requests: queue.SimpleQueue[Any]) -> None:
    """One request, one reply, in a thread of its own: a caller that Ctrl+C interrupts leaves no half message."""
    assert child.stdin is not None
    assert child.stdout is not None
    while (item := requests.get()) is not None:
        request, replies = item
        try:
            wire.send(child.stdin, request)  # type: ignore[arg-type]
            reply = wire.receive(child.stdout)  # type: ignore[arg-type]
        except (OSError, EOFError, ValueError, TypeError):
            reply = None
        replies.put(reply)
    child.stdin.close()
    child.stdout.close()


def _end(child: subprocess.Popen[bytes], requests: queue.SimpleQueue[Any], stderr: IO[bytes]) -> None:
    """The thread closes the pipe once it has its reply, and the child ends with the pipe."""
    requests.put(None)
    try:
        child.wait(GRACE_S)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()
    stderr.close()
