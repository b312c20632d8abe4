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
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
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
    """Views of one caller. Of a prompt they are fed one after the other, in parts of at most n_part tokens (0: it is no
    prompt): .views is what is left. n_later: tokens of the same prompt that later requests will feed."""

    def __init__(self, views: Sequence[DecodeView], n_part: int = 0, n_later: int = 0) -> None:
        self.views, self.n_part, self.n_later = list(views), n_part, n_later
        self.n_tokens = sum(len(view.tokens) for view in views)
        self.caller = threading.current_thread()
        self.is_main = self.caller is threading.main_thread()
        self.gate = threading.Lock()
        """Held while there is nothing to wake for."""
        self.gate.acquire()
        self.answer: list[Decoded] | None = None
        self.error: HogwildError | None = None
        self.has_waited = False
        self.due = 0
        """Of a prompt that was asked for: prompts are fed in this order."""
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
        """What feeds n of the tokens that are left: all of them, but for a prompt."""
        return list(_first(self.views, n)) if self.n_part else self.views

    def take(self, answer: list[Decoded], n: int) -> None:
        if self.n_part:
            self.views = list(_rest(self.views, n))
        self.answer = answer

    def wake(self) -> None:
        if self.gate.locked():
            self.gate.release()


def _first(views: Sequence[DecodeView], n: int) -> Iterator[DecodeView]:
    """What feeds n tokens, one view after the other."""
    for view in views:
        if n > 0:
            yield view.first(min(n, len(view.tokens)))
        n -= len(view.tokens)


def _rest(views: Sequence[DecodeView], n: int) -> Iterator[DecodeView]:
    """What _first() leaves."""
    for view in views:
        if n < len(view.tokens):
            yield view.rest(max(0, n))
        n -= len(view.tokens)


@dataclass(frozen=True, slots=True)
class Batch:
    """Who feeds how many tokens in a pass; how many of them are no prompt's, and how many prompts'."""

    n_of: Mapping[Request, int]
    n_others: int
    n_joined: int


def _nobody() -> None:
    return None


class Merger:
    """Passes of one cache. n_batch: most tokens of a pass."""

    def __init__(self, decode: Decode, ledger: Ledger, n_batch: int, clock: Callable[[], float] = perf_counter) -> None:
        self._decode, self._ledger, self._n_batch, self._clock = decode, ledger, n_batch, clock
        self._library = threading.Lock()  # held by the one call of it that goes on
        self._leader: Callable[[], Request | None] = _nobody
        """Who leads the next pass or is in it: a weak reference, for what two Ctrl+C can lose."""
        self._mutex = threading.Lock()  # of what follows; held for moments only
        self._queue: list[Request] = []
        self._turns = Turns()
        self._pace = Pace()
        self._n_prompt_tokens = 0  # that were fed
        self._dues: dict[threading.Thread, int] = {}  # of prompts that go on in their callers' next requests

    def alone(self, change: Callable[[], T]) -> T:
        """What changes the cache but is no pass: while none runs."""
        with self._library:
            try:
                self._ledger.settle()
                return change()
            except HogwildError:
                raise
            except BaseException:
                self._ledger.is_known = False
                raise

    def feed(self, request: Request) -> list[Decoded]:
        """The answer to a request: of a prompt it may be to a part of it, and request.views is what is left.

        Raises CacheFull, and what the pass raises; what was not fed is still promised to the request: see release()."""
        try:
            self._ask(request)
            while not request.is_answered:
                wait_s = self._wait_s(request)
                if wait_s:
                    request.gate.acquire(timeout=wait_s)
                else:
                    self._lead(request)
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
            due = self._dues.pop(request.caller, 0)
            if request.n_part:
                request.due = request.due or due or self._n_prompt_tokens + request.n_tokens + request.n_later
            if request.n_later:
                self._dues[request.caller] = request.due
            self._queue.append(request)

    def _wait_s(self, request: Request) -> float:
        """How long to wait before looking again; 0: lead."""
        with self._mutex:
            if self._leader() not in (None, request) or request not in self._queue:
                return POLL_S
            if request.is_main and any(not other.is_main for other in self._queue):
                return POLL_S
            if request.is_main and self._turns.n_awaited and not request.has_waited:
                request.has_waited = True
                return self._turns.patience
            self._leader = weakref.ref(request)
            return 0.0

    def _wake_next(self) -> None:
        with self._mutex:
            waiting = [request for request in self._queue if not request.is_main] or self._queue
            if waiting:
                waiting[0].wake()

    def _withdraw(self, request: Request) -> None:
        with self._mutex:
            self._turns.left(request.caller)
            if self._leader() is request:
                self._leader = _nobody
            if request in self._queue:
                self._queue.remove(request)

    # -- leading --

    def _lead(self, leader: Request) -> None:
        try:
            if not leader.is_main:
                self._wait_for_turns()  # outside of the library: they may have to change something before they ask
            self.alone(partial(self._pass, leader))
        finally:
            self._leader = _nobody
            self._wake_next()

    def _pass(self, leader: Request) -> None:
        """One pass, of the leader and of others that wait."""
        if leader.is_answered:
            return
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
        if batch.n_of == {asked: outcome[1] for asked, outcome in outcomes.items() if isinstance(outcome, tuple)}:
            self._pace.took(batch.n_others, batch.n_joined, seconds)
        self._n_prompt_tokens += batch.n_joined
        self._dues = {caller: due for caller, due in self._dues.items() if caller.is_alive()}
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
        """Who goes into the next pass, in the order of arrival: all that fit. The first one always does. Prompts share
        what is left of it."""
        n_of: dict[Request, int] = {}
        prompts: list[Request] = []
        room, taken = self._n_batch, set[object]()
        for request in queue:
            is_barred = not taken.isdisjoint(request.alone)
            taken |= request.alone  # also of one that is left out: those after it wait behind it
            if is_barred:
                continue
            if request.n_part:
                prompts.append(request)
            elif request.n_tokens <= room - bool(prompts):
                n_of[request] = request.n_tokens
                room -= request.n_tokens
        n_others = self._n_batch - room
        n_joined = 0
        for request, n in self._parts(prompts, n_others, room):
            n_of[request] = n
            n_joined += n
        return Batch(n_of, n_others, n_joined)

    def _parts(self, prompts: list[Request], n_others: int, room: int) -> Iterator[tuple[Request, int]]:
        """The parts of prompts that join so many tokens of others. Of two prompts the one goes first that would have
        ended first if each had been fed from when it came: a short one is not held up by a long one that was there
        before, and no stream of short ones holds up a long one for ever."""
        prompts = sorted(prompts, key=lambda prompt: (prompt.due, prompt.n_left))
        if prompts and n_others:
            room = min(room, self._pace.share(prompts[0], n_others, len(prompts)))
        for prompt in prompts:
            n = min(prompt.n_left, prompt.n_part, room)
            if n:
                yield prompt, n
            room -= n

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
                elif isinstance(error, CacheFull) and request.n_part and n > 1:
                    self._run({request: n // 2}, outcomes)
                else:
                    outcomes[request] = error
            return
        for request, part in views.items():
            answer = [next(rows) for _ in part]
            for view in part:
                self._ledger.fed(request, view.blocks[-1], len(view.tokens))
            outcomes[request] = answer, n_of[request]
