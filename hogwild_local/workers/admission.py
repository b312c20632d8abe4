"""Which runs may use a cache now, in order of arrival, and how many of its cells each has and may still take.

A run arrives when its first event is asked for. It is let in when the cache has room for its prompt, the workers'
first words and the finisher, and fewer than max_runs are inside; nobody overtakes. From then on its cells are counted
here, so that what one run has been promised, another does not take. Where there is a max_runs, an equal share of all
cells is promised too: who comes later cannot end the work of those who are there.
"""

from __future__ import annotations

import contextlib
import threading
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from time import monotonic

from ..engine.protocols import CacheLike
from ..errors import Busy, CacheFull
from .layouts import Block
from .prefixes import Prefix, Prefixes

LEAST_AWAITED = 64
"""Tokens of a prompt for which a run waits where another one computes them at this moment."""
IDLE_S = 1.0
"""A run whose consumer asks for no more, for so long, is not waited for."""
WAKE_S = 1.0  # a run that was lost without a word (Ctrl+C twice in its clean-up) wakes nobody


@dataclass(frozen=True, eq=False, slots=True, weakref_slot=True)
class Allowance:
    """What the runs that have it in common may have together: cells, prompts among them, and runs at the same time."""

    n_cells: int
    n_runs: int


class Admission:
    """The runs of one cache of n_ctx cells, some of which hold prompts that no run stands on any more."""

    def __init__(self, n_ctx: int, max_runs: int | None = None, prefixes: Prefixes | None = None) -> None:
        self._n_ctx, self._max_runs = n_ctx, max_runs
        self._share = n_ctx // max_runs if max_runs else 0
        self.prefixes = prefixes or Prefixes()
        self._changed = threading.Condition(self.prefixes.lock)
        self._inside: list[weakref.ref[Place]] = []
        self._waiting: list[weakref.ref[Place]] = []

    def place(self) -> Place:
        """A place for one run, which has not arrived yet."""
        return Place(self)

    # -- for Place, inside the lock --

    def _arrive(self, place: Place) -> None:
        if place.least > self._most(place):
            raise CacheFull(place.least, self._most(place))
        self._waiting.append(weakref.ref(place))

    def _leave(self, place: Place) -> None:
        for line in (self._inside, self._waiting):
            line[:] = [ref for ref in line if ref() not in (None, place)]
        self._changed.notify_all()  # who waits looks who can be let in

    def _let_in(self) -> None:
        """Lets in whoever fits, in order; who has to wait for runs of its own allowance only, holds up nobody else."""
        self._inside = [ref for ref in self._inside if ref() is not None]
        self._waiting = [ref for ref in self._waiting if ref() is not None]
        for ref in list(self._waiting):
            place = ref()
            if self._max_runs is not None and len(self._inside) >= self._max_runs:
                break
            if place is None or not self._is_allowed(place):
                continue
            if not self._fits(place):
                break
            place.prefix = self.prefixes.hold(place.prompt)
            place.reserved = self._promised(place) - place.prefix.n_tokens
            place.inside = True
            self._waiting.remove(ref)
            self._inside.append(ref)
            self._changed.notify_all()

    def _fits(self, place: Place) -> bool:
        """What other runs hold of its prompt costs nothing more."""
        _, n_shared = self.prefixes.found(place.prompt)
        return self._promised(place) - n_shared <= self._n_ctx - self._held_by_others(place)

    def _promised(self, place: Place) -> int:
        """Cells with which it begins, and which nobody takes from it."""
        return min(max(place.wanted, self._share), self._most(place))

    def _most(self, place: Place) -> int:
        """Cells that it can ever have."""
        return self._n_ctx if place.allowance is None else min(self._n_ctx, place.allowance.n_cells)

    def _is_allowed(self, place: Place) -> bool:
        """May it begin, as far as runs of its allowance are concerned? One alone always may."""
        siblings = self._siblings(place) if place.allowance is not None else []
        if place.allowance is None or not siblings:
            return True
        _, n_shared = self.prefixes.found(place.prompt)
        fits = self._promised(place) - n_shared <= self._left_of_allowance(place)
        return fits and len(siblings) < place.allowance.n_runs

    def _siblings(self, place: Place) -> list[Place]:
        return [other for other in self._others(place) if other.allowance is place.allowance]

    def _others(self, place: Place) -> list[Place]:
        """All that are inside, but for this one."""
        return [other for ref in self._inside if (other := ref()) is not None and other is not place]

    def _left_of_allowance(self, place: Place) -> int:
        """Cells that it can still have of it. What several stand on is one."""
        runs = [place, *self._siblings(place)]
        nodes = {node for run in runs if run.prefix is not None for node in run.prefix.path}
        kept = sum(run.used + run.reserved for run in runs) - place.reserved
        return self._most(place) - kept - sum(len(node.tokens) for node in nodes)

    def _held_by_others(self, place: Place) -> int:
        """Cells that are of no use to it: others' own, what is kept for them, and the prompts that runs stand on."""
        return sum(other.used + other.reserved for other in self._others(place)) + self.prefixes.n_held

    def _make_room(self) -> None:
        """Prompts that no run stands on give way to what the runs use."""
        runs = [run for ref in self._inside if (run := ref()) is not None]
        self.prefixes.drop(sum(run.used for run in runs) + self.prefixes.n_cells - self._n_ctx)

    def _position(self, place: Place) -> int:
        """0: not in the queue, or not any more."""
        return next((i for i, ref in enumerate(self._waiting, 1) if ref() is place), 0)

    def _awaited(self, place: Place) -> bool:
        """Does another run compute what this one would compute as well?"""
        assert place.prefix is not None
        for ref in self._inside:
            other = ref()
            if other is None or not other.computes or other.thread == place.thread or other.idle_s() > IDLE_S:
                continue
            assert other.prefix is not None
            n_known = max(place.prefix.n_tokens, other.prefix.n_tokens)
            end = n_known + LEAST_AWAITED
            if len(place.prompt) >= end and list(place.prompt[:end]) == list(other.prompt[:end]):
                return True
        return False

    def _others_go_on(self, place: Place) -> bool:
        """Is there a run that may end while this one waits?"""
        others = self._others(place)
        return any(not run.is_short and run.thread != place.thread and run.idle_s() <= IDLE_S for run in others)

    def _nobody_can_leave(self) -> bool:
        """Are all runs inside held by threads that wait here, this one among them?"""
        asleep = {place.asleep for ref in self._waiting if (place := ref()) is not None} | {threading.get_ident()}
        return all(place.thread in asleep for ref in self._inside if (place := ref()) is not None)


class Place:
    """One run's place: before it arrives, in the queue, inside, and gone."""

    def __init__(self, admission: Admission) -> None:
        self.least = self.wanted = 0
        self.used = self.reserved = 0
        """Cells that it has, and that are kept for it."""
        self.thread = 0
        """Who iterated it last."""
        self.asleep = 0
        """Who waits for it to be let in."""
        self.inside = False
        self.allowance: Allowance | None = None
        """What it has with others in common; None: the whole cache."""
        self.prompt: Sequence[int] = ()
        """Its tokens, of which the cache may have some."""
        self.prefix: Prefix | None = None
        """What it stands on of earlier prompts, while it is inside."""
        self.computes = False
        """Whether it is going to compute the rest of its prompt, or at it."""
        self.is_short = False
        """Whether it waits for what other runs may give back, and counts for none of these itself."""
        self._in_pass, self._pass_ended = False, 0.0
        self._admission = admission
        self._told = -1
        self._gone = self._given_up = False

    def wait(self, least: int, wanted: int, prompt: Sequence[int] = ()) -> int:
        """Waits until the run's position in the queue is another than the one returned last, and returns it; 0: it
        waits no more, because it was let in or gone.

        least: cells without which it can never run; wanted: with which it begins well; prompt: tokens of both that
        other runs may have computed. Raises CacheFull, with nothing
        changed, where least is more than the cache has; Busy, leaving it in the queue, where it would wait for ever:
        all runs inside were iterated last by this thread, or by others that wait as well.
        """
        admission = self._admission
        with admission._changed:
            self.thread = threading.get_ident()
            if self._told < 0 and not self._gone:
                self.least, self.wanted, self.prompt = least, wanted, prompt
                admission._arrive(self)
            admission._let_in()
            while (position := admission._position(self)) == self._told:
                if admission._nobody_can_leave():
                    raise Busy("this run waits for others that only this thread can end: close or finish them")
                self._sleep()
                admission._let_in()
            self._told = position
            return position

    def give_up(self) -> None:
        """Leaves the queue, if it is there or before it was, and waits for nobody's prompt."""
        with self._admission._changed:
            self._given_up = True
            self._admission._changed.notify_all()
            if not self.inside:
                self.leave()

    def leave(self) -> None:
        """Gives everything back. May be called twice."""
        with self._admission._changed:
            self._gone = True
            self.inside = self.computes = False
            if self.prefix is not None:
                self.prefix.release()
            self._admission._leave(self)

    def grow(self, n: int, keep: int) -> bool:
        """Takes n cells if keep more than these stay for the run; these are then kept from others too, and the rest of
        its share."""
        with self._admission._changed:
            self.thread = threading.get_ident()
            if self.left < n + keep:
                return False
            self.used += n
            self.reserved = max(keep, min(self._admission._share - self.n_cells, self.left))
            self._admission._make_room()
            return True

    def spend(self, n: int) -> None:
        """Takes n of the cells that are kept for the run."""
        with self._admission._changed:
            self.thread = threading.get_ident()
            self.used, self.reserved = self.used + n, max(0, self.reserved - n)
            self._admission._make_room()

    def give_back(self, n: int) -> None:
        """n of the cells that it has are kept for it again."""
        with self._admission._changed:
            self.used, self.reserved = self.used - n, self.reserved + n

    def make_room(self) -> bool:
        """Lets all prompts go that no run stands on; whether there were any. For what is not counted here: each has a
        window of its own in layers with a sliding window."""
        with self._admission._changed:
            n = self._admission.prefixes.n_cells
            self._admission.prefixes.drop_all()
            return self._admission.prefixes.n_cells < n

    def wait_for_others(self) -> bool:
        """Waits until a run gives something back that is not counted here, or for a moment. False: none that goes on
        could, or this one was given up."""
        with self._admission._changed:
            self.thread, self.is_short = threading.get_ident(), True
            try:
                if self._given_up or not self._admission._others_go_on(self):
                    return False
                self._admission._changed.wait(IDLE_S / 4)
                return True
            finally:
                self.is_short = False

    def reach(self) -> int:
        """Stands on as much of its prompt as the cache has, in the middle of blocks too; how many tokens that is. Waits
        for a run that computes more of it."""
        assert self.prefix is not None
        n = self.prefix.n_tokens
        self.prefix.reach(self.prompt)
        with self._admission._changed:
            while not self._given_up and self._admission._awaited(self):
                self._admission._changed.wait(IDLE_S / 4)
            self.computes, self._pass_ended = True, monotonic()
        self.prefix.reach(self.prompt)
        with self._admission._changed:
            self.reserved = max(0, self.reserved - (self.prefix.n_tokens - n))
        return self.prefix.n_tokens

    def share(self, block: Block) -> None:
        """The block of its prompt that it has computed behind its prefix may be used by others from now on."""
        assert self.prefix is not None
        with self._admission._changed:
            n = len(block)
            self.computes = False
            self._admission._changed.notify_all()
            if self.prefix.add(block, self.prompt[: self.prefix.n_tokens + n]):
                self.shrink(n)

    @property
    def blocks(self) -> list[Block]:
        """Of its prompt, those that earlier runs have computed."""
        return self.prefix.blocks if self.prefix is not None else []

    def recall(self, cache: CacheLike, tokens: Sequence[int], name: str) -> Block | None:
        """A copy of the block of a text that an earlier run has computed alone."""
        prefixes = self._admission.prefixes
        with self._admission._changed:
            if not self.prompt or prefixes.recall(tokens) is None:
                return None
            self.spend(len(tokens))
            with contextlib.suppress(CacheFull):  # of windows
                if (known := prefixes.recall(tokens)) is not None:  # unless it had to give way to its copy
                    return cache.copy(known, name)
            self.give_back(len(tokens))
            return None

    def keep(self, block: Block, tokens: Sequence[int]) -> bool:
        """The block of a text that was computed alone may be copied by others from now on. False: it is the run's."""
        prefixes = self._admission.prefixes
        return bool(self.prompt) and len(block) == len(tokens) and prefixes.keep(block, tokens)

    def shrink(self, n: int) -> None:
        """Gives n cells back."""
        with self._admission._changed:
            self.used -= n
            self._admission._changed.notify_all()

    @property
    def n_splits(self) -> int:
        """Views that were made before it changed are of no use any more."""
        return self._admission.prefixes.n_splits

    @contextmanager
    def steady(self) -> Iterator[None]:
        """While a pass is planned and made: its views stay of use."""
        self._in_pass = True
        try:
            with self._admission.prefixes.passes.kept():
                yield
        finally:
            self._in_pass, self._pass_ended = False, monotonic()

    def idle_s(self) -> float:
        """How long it has been in no pass."""
        return 0.0 if self._in_pass else monotonic() - self._pass_ended

    @property
    def n_cells(self) -> int:
        """That it has, and stands on."""
        return self.used + (self.prefix.n_tokens if self.prefix is not None else 0)

    @property
    def left(self) -> int:
        """Cells that this run can still have: all but its own and those that others have or are kept for them."""
        with self._admission._changed:
            free = self._admission._n_ctx - self._admission._held_by_others(self) - self.used
            return free if self.allowance is None else min(free, self._admission._left_of_allowance(self))

    def _sleep(self) -> None:
        self.asleep = threading.get_ident()
        try:
            self._admission._changed.wait(WAKE_S)
        finally:
            self.asleep = 0
