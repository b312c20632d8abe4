"""The workers of a run: what they write, and how their steps and they themselves end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeVar

from .. import events as ev
from ..engine.protocols import SamplerLike
from ..engine.views import Sampled
from ..options import Worker
from .context import Context
from .layouts import Block
from .text import EndOfStep
from .writer import Writer

T = TypeVar("T")

REASONS: tuple[ev.Reason, ...] = ("answer", "cancelled", "closed", "budget", "cache_full", "stopped", "stop", "eos")
"""Of several workers' reasons, the first of these is the run's."""


class Team:
    """Tells what happens in events, in worker order. What a worker wrote last is fed before it leaves, where somebody
    is still going to read it: another worker, the finisher, or the reply."""

    def __init__(self, run: Context, closing: int | None) -> None:
        """closing: the token that closes thoughts, where that is a vote to end the work."""
        self._run, self._closing = run, closing
        self.workers: list[Writer] = []
        self.active: list[Writer] = []
        self.answer: ev.Answer | None = None
        self.n_fed = 0
        """Tokens fed since the last redundancy question."""
        self.to_stop: set[str] = set()
        """Names of workers that are to leave at the next pass."""
        self.n_expected = 0
        """Workers who are to join."""
        self.is_over = False
        """The work has ended, and with it all who are still active: nobody joins any more."""
        self._views: dict[int, Sequence[Block]] = {}
        self._n_splits = 0
        self._at_step = run.settings.answer_at == "step"
        self._closes_with = run.wording.style.answer.closes_with[-1:]

    @property
    def reason(self) -> ev.Reason:
        """Why the run ended; it does not depend on who ended last."""
        reasons = {worker.finished for worker in self.workers}
        return next(reason for reason in REASONS if reason in reasons)

    def join(self, who: Worker, sampler: SamplerLike, first: Sequence[int]) -> None:
        """The next worker, with the tokens of its first words."""
        run, index = self._run, len(self.workers)
        style = run.wording.style
        spans_tokens = len(run.tokens(style.step.separator)) > 1
        rule = EndOfStep(style.step.separator, style.sentence_end, spans_tokens)
        stops = (*style.stop.strings, *run.settings.stop, *who.stop)
        worker = Writer(index, who.name, run.model, sampler, rule, stops, run.ends_work, self._closing)
        worker.open_step(run.wording.first(index), first)
        self.workers.append(worker)
        self.active.append(worker)

    def view(self, worker: Writer) -> Sequence[Block]:
        if self._n_splits != (n_splits := self._run.place.n_splits):
            self._views.clear()
            self._n_splits = n_splits
        view = self._views.get(worker.index)
        if view is None:
            view = self._views[worker.index] = self._run.layout.seen_by(worker.index)
        return view

    def take(self, worker: Writer, sampled: Sampled) -> None:
        """worker sampled a token."""
        token = worker.take(sampled, self._run.meter.n_pass)
        self._run.tell(token)
        self._run.meter.tokens += 1
        if not self._at_step or worker.step_ended or worker.finished:
            self._look_for_answer(worker, token.text)

    def settle(self, workers: Sequence[Writer]) -> None:
        """After a pass of these: ends workers and steps."""
        for worker in workers:
            if worker.leaving:
                if not worker.pending:
                    self.retire(worker, worker.leaving)
            elif worker.finished == "stop" and not self.answer:
                self._take_back_stop(worker)
            elif worker.finished:
                self.retire(worker, worker.finished)
            elif self.answer:
                self.leave([worker], "answer")
            elif worker.step_ended:
                self._next_step(worker)
        if self._votes_suffice():
            self.leave_all("closed")
        elif self._run.settings.eos_ends_run and any(worker.finished == "eos" for worker in workers):
            self.leave_all("eos")

    def leave(self, leaving: Sequence[Writer], reason: ev.Reason) -> None:
        """These sample no more, and end once what they wrote last is fed."""
        is_read = self._is_read(leaving)
        for worker in [worker for worker in leaving if not worker.leaving]:
            if worker.step_tokens and is_read:
                worker.leaving = reason
            else:
                self.retire(worker, reason)

    def leave_all(self, reason: ev.Reason) -> None:
        """The work ends."""
        self.is_over = True
        self.leave(list(self.active), reason)

    def leave_if_stopped(self) -> None:
        """Who is still to join is stopped then."""
        if self.to_stop:
            self.leave([worker for worker in self.active if worker.name in self.to_stop], "stopped")
            self.to_stop -= {worker.name for worker in self.workers}

    def retire(self, worker: Writer, reason: ev.Reason, drop: bool = False) -> None:
        """worker writes no more; the others go on. drop: nothing of its step is to stay in the cache."""
        rest = worker.end_text(self._run.meter.n_pass)
        if rest:
            self._run.tell(rest)
        if rest or self._at_step:
            self._look_for_answer(worker, worker.written)
        if worker.step_tokens:
            self._end_step(worker, reason)
        # After those, nobody looks at the cache again.
        if reason != "cancelled" and (reason != "answer" or self._run.settings.reply_tokens):
            drop = drop or reason == "cache_full" or not worker.step_tokens
            self.change(partial(self._retire_blocks, worker, drop))
        self.active.remove(worker)
        worker.finished = reason
        self._run.tell(ev.WorkerFinished(worker.name, reason))

    def retire_all(self, reason: ev.Reason) -> None:
        for worker in list(self.active):
            self.retire(worker, reason)

    def _is_read(self, leaving: Sequence[Writer]) -> bool:
        """Will anybody read what these wrote last?"""
        settings = self._run.settings
        if self.answer or settings.reply_tokens:
            return bool(settings.reply_tokens)
        others = (worker for worker in self.active if worker not in leaving and not worker.leaving)
        return bool(settings.finisher_tokens or self.n_expected) or any(others)

    def _votes_suffice(self) -> bool:
        """Whether as many workers have closed their thoughts as the run's policy wants."""
        n, votes = len(self.workers), sum(worker.finished == "closed" for worker in self.workers)
        match self._run.settings.ends:
            case "first":
                return votes > 0
            case "majority":
                return 2 * votes > n
            case _:
                return False

    def _look_for_answer(self, worker: Writer, text: str) -> None:
        # Only a text with the last character of what closes an answer can complete one.
        if self.answer is None and (self._at_step or (text and self._closes_with in text)):
            answer = self._run.wording.find_answer(worker.written)
            self.answer = ev.Answer(answer, worker.name) if answer else None

    def _take_back_stop(self, worker: Writer) -> None:
        """Takes the parts of a stop string out of the cache. Of a token that it begins in, the text before is fed."""
        n_before, rest = worker.before_stop()
        n_fed = worker.step_tokens - 1
        again: list[int] = []
        if n_fed > n_before:
            self.change(lambda: again.extend(self._run.layout.cut_step(worker.index, n_fed - n_before)))
        worker.pending = [*again, *self._run.tokens(rest)] if n_before or rest else []
        if worker.pending and self._is_read([worker]):
            worker.leaving = "stop"
        else:
            self.retire(worker, "stop", drop=not n_before)

    def _next_step(self, worker: Writer) -> None:
        """The step joins the history; the token that ended it is fed first into the new one, then the prefix."""
        run, settings = self._run, self._run.settings
        due = bool(settings.redundancy_every) and len(self.workers) > 1 and self.n_fed >= settings.redundancy_every
        ask = due and bool(run.wording.style.redundancy.question)
        prefix = run.wording.prefix(worker.index, worker.step + 1, question=ask)
        # Over a prefix no stop string can reach; where there is none, it may begin here and end in the next step.
        rest = worker.let_go(run.meter.n_pass) if prefix else None
        if rest:
            run.tell(rest)
            self._look_for_answer(worker, rest.text)
        self._end_step(worker, "end")
        self.change(partial(run.layout.end_step, worker.index))
        if ask:
            self.n_fed = 0
            run.tell(ev.RedundancyCheck(worker.name, worker.step + 1))
        worker.open_step(prefix, run.tokens(prefix))
        run.tell(ev.StepStarted(worker.name, worker.step, prefix))

    def _end_step(self, worker: Writer, reason: str) -> None:
        self._run.tell(ev.StepEnded(worker.name, worker.step, worker.step_text, worker.step_tokens, reason))

    def _retire_blocks(self, worker: Writer, drop: bool) -> None:
        if drop:
            self._run.layout.drop_step(worker.index)
        self._run.layout.retire(worker.index)

    def change(self, change: Callable[[], T]) -> T:
        """Changes the layout; cells that come back may be used by all runs."""
        before = self._n_cells()
        changed = change()
        self._views.clear()
        self._run.place.shrink(before - self._n_cells())
        return changed

    def _n_cells(self) -> int:
        return sum([len(block) for block in self._run.layout.blocks])
