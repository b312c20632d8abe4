"""One forward pass for many callers: what arrives while a pass runs goes into the next one together.

    caller A  ask ─ lead ══ pass {A} ══╗            ╔══ ...
    caller B      ask ─ wait ──────────╨ lead ══ pass {B, C, A} ══╗ answer
    caller C        ask ─ wait ──────────────────────────╨─ answer
    caller A                  answer ─ ask again ─ wait ─╨─ answer

No thread of its own and no timer: whoever finds no pass running leads the next one, for all that wait, and alone it
waits for nobody. The main thread never leads for others: Ctrl+C ends what it does, and must lose nobody else's result.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from time import perf_counter
from typing import TypeVar

from ..errors import CacheFull, ComputeError, HogwildError
from .ledger import Ledger
from .pace import Pace
from .turns import Turns
from .views import Decoded, DecodeView

T = TypeVar("T")
Outcome = tuple[list[Decoded], int] | HogwildError
"""What was fed, with so many tokens; or why nothing was."""
Decode = Callable[[Sequence[DecodeView]], list[Decoded]]

POLL_S = 0.1
"""Only for what two Ctrl+C can lose: a leader that told nobody that it has ended."""


class Request:
    """Views of one caller. With a pace it is one view, which may be fed in parts: then .views is what is left."""

    def __init__(self, views: Sequence[DecodeView], pace: Pace | None = None, n_most: int = 0) -> None:
        self.views, self.pace, self.n_most = list(views), pace, n_most
        self.n_tokens = sum(len(view.tokens) for view in views)
        self.caller = threading.get_ident()
        self.is_main = threading.current_thread() is threading.main_thread()
        self.gate = threading.Lock()
        """Held while there is nothing to wake for."""
        self.gate.acquire()
        self.answer: list[Decoded] | None = None
        self.error: HogwildError | None = None
        self.has_waited = False
        # Own blocks and samplers, which can be in one view of a pass only.
        self.alone = {("block", view.blocks[-1]) for view in views}
        self.alone |= {("sampler", id(view.sampler)) for view in views if view.sampler is not None}

    @property
    def is_answered(self) -> bool:
        return self.answer is not None or self.error is not None

    @property
    def n_left(self) -> int:
        return sum(len(view.tokens) for view in self.views)

    def part(self, n: int) -> list[DecodeView]:
        """What feeds n of the tokens that are left: all of them, but where it has a pace."""
        return self.views if self.pace is None else [self.views[0].first(n)]

    def take(self, answer: list[Decoded], n: int) -> None:
        if self.pace is not None:
            self.views = [self.views[0].rest(n)]
        self.answer = answer

    def wake(self) -> None:
        if self.gate.locked():
            self.gate.release()


@dataclass(frozen=True, slots=True)
class Batch:
    """Who feeds how many tokens in a pass; the tokens of all but a long prompt; the long prompt that waits, whether it
    is in the pass or not."""

    n_of: Mapping[Request, int]
    n_others: int
    long: Request | None

    def measured(self, seconds: float) -> None:
        if self.long is not None and self.long.pace is not None and self.n_others:
            self.long.pace.took(self.n_others, self.n_of.get(self.long, 0), seconds)


class Merger:
    """Passes of one cache. n_batch: most tokens of a pass."""

    def __init__(self, decode: Decode, ledger: Ledger, n_batch: int, clock: Callable[[], float] = perf_counter) -> None:
        self._decode, self._ledger, self._n_batch, self._clock = decode, ledger, n_batch, clock
        self._lead = threading.Lock()
        self._is_led = False
        self._mutex = threading.Lock()  # of what follows; held for moments only
        self._queue: list[Request] = []
        self._turns = Turns()

    def alone(self, change: Callable[[], T]) -> T:
        """What changes the cache but is no pass: while none runs."""
        try:
            # Ctrl+C finds no gap in these lines: a lock is taken and given back by with, and nothing is called between
            # an exception and the assignments.
            with self._lead:
                self._is_led = True
                try:
                    self._ledger.settle()
                    return change()
                except HogwildError:
                    raise
                except BaseException:
                    self._ledger.is_known = False
                    raise
                finally:
                    self._is_led = False
        finally:
            self._wake_next()

    def feed(self, request: Request) -> list[Decoded]:
        """The answer to a request. Where it has a pace, it may be a part of it, and request.views is what is left.

        Raises CacheFull, and what the pass raises; what was not fed is still promised to the request: see release()."""
        try:
            self._ask(request)
            while not request.is_answered:
                wait_s = self._wait_s(request)
                if wait_s:
                    request.gate.acquire(timeout=wait_s)
                else:
                    self.alone(partial(self._pass, request))
        except BaseException:
            self._withdraw(request)
            raise
        if request.error is not None:
            raise request.error
        answer, request.answer = request.answer, None
        assert answer is not None
        return answer

    def release(self, request: Request) -> None:
        """What was promised to a request and is not fed."""
        self._ledger.release(request)

    # -- waiting --

    def _ask(self, request: Request) -> None:
        if not self._ledger.is_known:
            self.alone(lambda: None)
        with self._mutex:
            self._ledger.promise(request, request.n_tokens)
            self._turns.came(request.caller, self._clock())
            self._queue.append(request)

    def _wait_s(self, request: Request) -> float:
        """How long to wait before looking again; 0: lead."""
        with self._mutex:
            if self._is_led or request not in self._queue:
                return POLL_S
            if request.is_main and any(not other.is_main for other in self._queue):
                return POLL_S
            if request.is_main and self._turns.n_awaited and not request.has_waited:
                request.has_waited = True
                return self._turns.patience
            return 0.0

    def _wake_next(self) -> None:
        with self._mutex:
            waiting = [request for request in self._queue if not request.is_main] or self._queue
            if waiting:
                waiting[0].wake()

    def _withdraw(self, request: Request) -> None:
        with self._mutex:
            self._turns.left(request.caller)
            if request in self._queue:
                self._queue.remove(request)

    # -- leading --

    def _pass(self, leader: Request) -> None:
        """One pass, of the leader and of others that wait."""
        if leader.is_answered:
            return
        if not leader.is_main:
            self._wait_for_turns()
        with self._mutex:
            self._turns.give_up()
            batch = self._gather([leader] if leader.is_main else self._queue)
            for request in batch.n_of:
                self._queue.remove(request)
        outcomes: dict[Request, Outcome] = {}
        start = self._clock()
        try:
            self._run(batch.n_of, outcomes)
        finally:
            now = self._clock()
            with self._mutex:
                self._end(batch, outcomes, now - start, now)

    def _end(self, batch: Batch, outcomes: Mapping[Request, Outcome], seconds: float, now: float) -> None:
        """Nobody sees an outcome before: who takes his may ask again with the same request."""
        batch.measured(seconds)
        self._turns.woke([request.caller for request in batch.n_of], seconds, now)
        for request in batch.n_of:
            match outcomes.get(request):
                case (answer, n):
                    request.take(answer, n)
                case error:
                    request.error = error or ComputeError(
                        "the thread that computed this pass was interrupted: ask again"
                    )
            request.wake()

    def _wait_for_turns(self) -> None:
        while True:
            with self._mutex:
                if not self._turns.n_awaited:
                    return
            if not self._turns.wait_for_one():
                return

    def _gather(self, queue: Sequence[Request]) -> Batch:
        """Who goes into the next pass, in the order of arrival: all that fit. The first one always does."""
        n_of: dict[Request, int] = {}
        room, taken, long = self._n_batch, set[object](), None
        for request in queue:
            is_barred = not taken.isdisjoint(request.alone)
            taken |= request.alone  # also of one that is left out: those after it wait behind it
            if is_barred:
                continue
            if request.pace is None and request.n_tokens <= room:
                n_of[request] = request.n_tokens
                room -= request.n_tokens
            elif request.pace is not None and long is None and room > 0:
                long = request
                room -= 1
        n_others = self._n_batch - room - (long is not None)
        if long is not None:
            n_long = min(long.n_left, room + 1, long.n_most)
            if n_others and long.pace is not None:
                n_long = min(n_long, long.pace.share(n_others))
            if n_long:
                n_of[long] = n_long
        return Batch(n_of, n_others, long)

    def _run(self, n_of: Mapping[Request, int], outcomes: dict[Request, Outcome]) -> None:
        """Asks the library for the pass, and notes what became of it. Where it refuses several, nothing was fed: each
        is tried alone, and has its own error; and where a part of a long prompt has no room, a smaller one: in layers
        with a sliding window it makes room for the next."""
        views = {request: request.part(n) for request, n in n_of.items()}
        try:
            rows = iter(self._decode([view for part in views.values() for view in part]))
        except HogwildError as error:
            for request, n in n_of.items():
                if len(n_of) > 1:
                    self._run({request: n}, outcomes)
                elif isinstance(error, CacheFull) and request.pace is not None and n > 1:
                    self._run({request: n // 2}, outcomes)
                else:
                    outcomes[request] = error
            return
        for request, part in views.items():
            answer = [next(rows) for _ in part]
            for view in part:
                self._ledger.fed(request, view.blocks[-1], len(view.tokens))
            outcomes[request] = answer, n_of[request]
