"""Run: what the user holds of a run in progress, an iterator that other threads may stop, cancel or close."""

from __future__ import annotations

import inspect
import threading
from collections.abc import AsyncIterator, Callable, Generator, Iterator, Sequence
from typing import Self

from .. import events as ev
from ..checks import text as checked_text
from ..engine.protocols import CacheLike
from ..engine.views import Sampled
from ..errors import CacheFull, Closed, InvalidArgument
from ..options import Worker, as_worker
from .admission import Allowance
from .commands import Cancel, Say, Stop
from .feeds import Feed
from .loop import Loop
from .result import Collector, Result


def drive(loop: Loop, cache: CacheLike) -> Generator[ev.Event, None, None]:
    """The whole run: plan, one pass, take, and so on. RunEnded comes after everything is free again."""
    try:
        yield from loop.begin()
        while (sampled := _pass(loop, cache)) is not None:
            yield from loop.take(sampled)
        yield from loop.end()
    finally:
        loop.close()
    yield loop.ended()


def _pass(loop: Loop, cache: CacheLike) -> Sequence[Sampled | None] | None:
    """The next one: what was sampled. None: there is none."""
    while True:
        with loop.steady():
            feeds = loop.plan()
            try:
                return _sampled(feeds, cache, loop.settings.logprobs) if feeds else None
            except CacheFull as error:  # of windows: the other cells are kept for it
                full = error
        if not loop.give_way():
            raise full


def _sampled(feeds: Sequence[Feed], cache: CacheLike, n_top: int | None) -> Sequence[Sampled | None]:
    views, samplers = [(feed.view, feed.tokens) for feed in feeds], [feed.sampler for feed in feeds]
    if feeds[0].n_later is not None:
        cache.prefill(views, feeds[0].n_later)
        return [None] * len(feeds)
    if n_top is not None:
        return cache.sampled(views, samplers, n_top)
    return [None if token is None else Sampled(token) for token in cache.next_tokens(views, samplers)]


class Run:
    """A run in progress: iterate it for its events.

        with hogwild.stream("PROMPT") as run:
            for event in run: ...

    Leaving the for loop (break, an exception), the with block, or close() ends the run and frees what it
    holds; so does dropping the last reference. next(run) does not. say(), add(), stop(), cancel() and
    close() may be called from any thread and take effect within one pass, or one chunk of the prompt; the last two at
    once, where the run waits in the queue.

    In a coroutine, `async for event in run` does the same: the run goes on in a thread of its own, the event loop waits
    for nothing, and whatever ends the loop (break, a cancelled task) ends the run.

    Several runs of one Hogwild go on at the same time: each in a thread of its own, which shares passes with the
    others, or in turn in one thread. A run that waits for others (RunQueued) raises Busy, and goes on waiting, where
    only its own thread could end them.
    """

    def __init__(self, loop: Loop, cache: CacheLike, told: Callable[[ev.Event], None] | None = None) -> None:
        self._loop, self._told = loop, told
        self._events = drive(loop, cache)
        self._begun = self._closing = False
        self._lock = threading.RLock()

    @property
    def workers(self) -> tuple[str, ...]:
        """All workers' names: those who have ended too, and those who are to join."""
        return self._loop.commands.names

    @property
    def done(self) -> bool:
        """True once the run has ended and holds nothing any more."""
        return self._loop.done

    def limit(self, allowance: Allowance) -> None:
        """Lets it have no more than what is left of this, which other runs may have too. Before its first event."""
        self._loop.place.allowance = allowance

    def stop(self, worker: str) -> None:
        """Lets one worker end: it samples no more from the next pass on; the others go on. Raises InvalidArgument for
        an unknown name."""
        self._loop.commands.put(Stop(worker))

    def say(self, text: str, to: str | None = None) -> None:
        """Says something to all workers; to: the name of the one who is meant. All read it, as a step of the user's in
        the history: it is fed beside their next pass (a long one beside several), and read from the one after that.
        Said tells of it, or NotSaid, where the cache has no room, or the work ends before. Several are said in their
        order. Waits for nothing. Raises InvalidArgument for what is no text, an unknown name, or prompts without words
        for it; Closed when the workers have ended; Busy where too much waits to be read already.
        """
        if not checked_text(text, "text").strip():
            raise InvalidArgument("text must not be empty")
        self._check_going_on()
        self._loop.commands.put(Say(text, to))

    def add(self, worker: Worker | str | None = None) -> str:
        """One more worker, or its name; None: by the next usual name that is free. Returns the name.

        It joins before the next pass, or when its role is fed: WorkerJoined tells of it, or WorkerRefused, where the
        cache has no room, the work ends before, or no sampler can be made of its settings. Waits for nothing. Raises
        InvalidArgument for a name that is taken, and for more workers than a pass or the prompts have room for; Closed
        when the workers have ended; Busy as say().
        """
        self._check_going_on()
        return self._loop.commands.add(None if worker is None else as_worker(worker))

    def _check_going_on(self) -> None:
        if self._closing or self.done:
            raise Closed("this run has ended")

    def cancel(self) -> None:
        """Ends the run early but in order: WorkerFinished and RunEnded, reason "cancelled", are its last
        events."""
        self._loop.commands.put(Cancel())
        self._loop.place.give_up()

    def result(self) -> Result:
        """Runs to the end. Raises what next() raises, and Closed if close() ended the run."""
        collector = Collector()
        for event in self:
            collector.take(event)
        return collector.result()

    async def aresult(self) -> Result:
        """The same in a coroutine."""
        collector = Collector()
        async for event in self:
            collector.take(event)
        return collector.result()

    def close(self) -> None:
        """Ends the run at once, without further events. Waits for a pass that another thread is in. May be
        called twice. Raises what freeing raises, after all else is free."""
        if self.done:
            return
        self.leave()
        with self._lock:
            self._finish()

    def leave(self) -> None:
        """close() without waiting: whoever iterates it frees what it holds, within one pass."""
        self._closing = True
        self._loop.place.give_up()

    def __next__(self) -> ev.Event:
        with self._lock:
            event = self._next()
            if self._told is not None:
                self._told(event)
            return event

    def _next(self) -> ev.Event:
        if not self._begun and not self._closing:
            queued = self._loop.wait()
            if queued is not None:
                return queued
            self._begun = True
        if self._closing:
            self._finish()
            raise StopIteration
        return next(self._events)

    def _finish(self) -> None:
        if inspect.getgeneratorstate(self._events) == inspect.GEN_RUNNING:
            return  # inside a pass of this very thread (a signal handler): the next event is the end
        self._events.close()
        self._loop.close()

    def __iter__(self) -> Iterator[ev.Event]:
        try:
            while True:
                try:
                    event = next(self)
                except StopIteration:
                    return
                yield event
        finally:
            self.close()

    def __aiter__(self) -> AsyncIterator[ev.Event]:
        from .asynchronous import events_of  # and so asyncio: few need it

        return events_of(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()
