"""A run that clients look at: its events, and where it stands."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic, time

from .. import events as ev
from ..errors import HogwildError
from ..workers.result import Collector, Result
from ..workers.run import Run
from . import sse
from .faults import Fault, fault_of
from .sse import StreamResponse
from .stream import Stream

log = logging.getLogger(__name__)

Encoder = Callable[["LiveRun", ev.Event], list[bytes]]
"""What clients are sent for an event."""


@dataclass(frozen=True, slots=True)
class Turn:
    """What a run replies to: the user's message at this place of a conversation, which has it once that has ended."""

    chat: str
    index: int
    content: str


class LiveRun:
    """Iterates a run in a task, and writes what clients are to get of it to a stream. It ends with its run; cancel()
    ends both within one pass."""

    def __init__(self, run: Run, name: str, client: str, encode: Encoder, stream: Stream) -> None:
        self.name, self.client, self.stream = name, client, stream
        self.created = int(time())
        self.run = run
        self.stays = False
        """Whether it goes on when nobody listens."""
        self.turn: Turn | None = None
        self.started: ev.RunStarted | None = None
        self.ended: ev.RunEnded | None = None
        self.fault: Fault | None = None
        self.prompt: ev.PromptProgress | None = None
        self.n_cached = 0
        self.reply_reason: str | None = None
        self.calls: list[ev.ToolCall] = []
        self.reply_tokens: list[ev.ReplyToken] = []
        """Those whose log-probabilities were asked for."""
        self.n_written: dict[str, int] = {}
        self.finished: dict[str, str] = {}
        self._encode, self._n_readers = encode, 0
        self._collector = Collector()
        self._begun, self._began = asyncio.Event(), monotonic()
        self._task = asyncio.create_task(self._go(), name=name)

    @property
    def is_waiting(self) -> bool:
        """In the queue, or not even there yet."""
        return self.started is None and not self._task.done()

    @property
    def is_done(self) -> bool:
        return self._task.done()

    async def begun(self) -> None:
        """Waits for its first event. Raises Fault if it could not begin."""
        await self._begun.wait()
        if self.fault is not None and self.started is None:
            raise self.fault

    async def result(self) -> Result:
        """Waits for its end. Raises Fault."""
        await asyncio.wait([self._task])
        if self.fault is not None:
            raise self.fault
        return self._collector.result()

    def ms_since_start(self) -> int:
        return round((monotonic() - self._began) * 1e3)

    def when_done(self, then: Callable[[LiveRun], object]) -> None:
        self._task.add_done_callback(lambda _: then(self))

    def cancel(self) -> None:
        """Ends it in order: those who listen are told."""
        self.run.cancel()

    async def gone(self) -> None:
        """Waits until it holds nothing any more."""
        await asyncio.wait([self._task])

    def response(self, after: int = 0, skip: int = 0) -> StreamResponse:
        """Its stream, from behind message `after`, and `skip` bytes of the next one, on. A run that nobody reads any
        more ends, unless it stays."""
        self._n_readers += 1
        return StreamResponse(self.stream, self._left, after, skip)

    def _left(self) -> None:
        self._n_readers -= 1
        if not self.stays and not self._n_readers:
            self.cancel()

    async def _go(self) -> None:
        try:
            # Whatever ends it, the run holds nothing any more behind this block.
            async with contextlib.aclosing(aiter(self.run)) as events:  # type: ignore[type-var]  # it is a generator
                async for event in events:
                    self._take(event)
        except HogwildError as error:
            self.fault = fault_of(error)
        except Exception as error:  # a fault of ours must not leave clients waiting
            log.exception("%s failed", self.name)
            self.fault = Fault(500, f"{type(error).__name__}: {error}")
        finally:
            if self.fault is not None:
                self._put(sse.data(self.fault.body()))
            self._begun.set()
            self.stream.end()

    def _take(self, event: ev.Event) -> None:
        self._collector.take(event)
        match event:
            case ev.RunStarted():
                self.started = event
                self.n_written = dict.fromkeys(event.workers, 0)
            case ev.WorkerJoined():
                self.n_written[event.worker] = 0
            case ev.PromptProgress():
                self.n_cached = event.done if self.prompt is None else self.n_cached
                self.prompt = event
            case ev.Token(worker=str() as worker, token=int()):
                self.n_written[worker] += 1
            case ev.WorkerFinished():
                self.finished[event.worker] = event.reason
            case ev.ReplyToken() if event.logprob is not None:
                self.reply_tokens.append(event)
            case ev.ToolCall():
                self.calls.append(event)
            case ev.ReplyEnded():
                self.reply_reason = event.reason
            case ev.RunEnded():
                self.ended = event
        for message in self._encode(self, event):
            self._put(message)
        self._begun.set()

    def _put(self, message: bytes) -> None:
        self.stream.put(sse.numbered(message, self.stream.n_messages + 1))
