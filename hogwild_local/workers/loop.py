"""The worker loop: N workers, one decode a pass, a generator of events (paper, section 3)."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from functools import partial
from time import perf_counter
from typing import Any, TypeVar

from .. import events as ev
from ..engine.protocols import CacheLike, ModelLike, SamplerLike
from ..errors import CacheFull, InvalidArgument
from ..prompts.prompt import Prompt, inner_tokens
from ..prompts.style import Wording
from .layouts import Layout
from .text import EndOfStep, Utf8Stream
from .worker import Worker

Feed = tuple[Worker, list[int]]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class RunSettings:
    """The numbers of a run. seed and date are only reported: they are in the samplers and the prompt already."""

    names: tuple[str, ...]
    seed: int
    max_passes: int = 1024
    redundancy_every: int = 1024
    """Sampled tokens, of all workers together, between two redundancy questions; 0: never ask."""
    finisher_tokens: int = 16
    """Length of the answer that the finisher may give; 0: no finisher."""
    stop: tuple[str, ...] = ()
    date: str = ""


class Loop:
    """One run. It owns the samplers, and the blocks through its layout; both are freed when events() ends in
    any way.

    It must not refer to its Run: a generator that is dropped in mid-run frees everything at once only without
    a cycle.
    """

    def __init__(
        self,
        model: ModelLike,
        cache: CacheLike,
        layout: Layout,
        wording: Wording,
        prompt: Prompt,
        make_sampler: Callable[[int], SamplerLike],
        settings: RunSettings,
    ) -> None:
        self.model, self.cache, self.layout = model, cache, layout
        self.wording, self.style, self.prompt, self.settings = wording, wording.style, prompt, settings
        self.make_sampler = make_sampler
        self.workers: list[Worker] = []
        self.active: list[Worker] = []
        self.stop_requests: set[str] = set()
        self.cancelled = False
        self.done = False
        self.reason: ev.Reason = "budget"
        self.answer: ev.Answer | None = None
        self.n_passes = self.n_tokens = self.n_prompt = self._since_question = self._reserve = 0
        self.context_left = cache.n_free
        self.prompt_s = self.generate_s = self.decode_s = 0.0
        self._views: dict[int, list[Any]] = {}
        self._finisher_block: Any = None
        self._layout_is_ours = False

    def events(self) -> Generator[ev.Event, None, None]:
        """The whole run. RunEnded comes after everything is free again."""
        try:
            yield self._open()
            yield from self._prefill()
            while self.active and not self.cancelled and self.n_passes < self.settings.max_passes:
                yield from self._timed_pass()
            yield from self._finish()
        finally:
            self.close()
        answer = self.answer.text if self.answer else None
        yield ev.RunEnded(self.reason, answer, self.timings(), self.usage())

    def close(self) -> None:
        """Frees what the run holds. May be called twice."""
        if not self.done:
            self.done = True
            if self._layout_is_ours:
                self.layout.close()
            if self._finisher_block is not None:
                self._finisher_block.free()
            for worker in self.workers:
                worker.close()

    def timings(self) -> ev.Timings:
        return ev.Timings(
            passes=self.n_passes,
            prompt_ms=1e3 * self.prompt_s,
            generate_ms=1e3 * self.generate_s,
            decode_ms=1e3 * self.decode_s,
            ms_per_pass=1e3 * self.generate_s / max(1, self.n_passes),
            tokens_per_second=self.n_tokens / self.generate_s if self.generate_s else 0.0,
        )

    def usage(self) -> ev.Usage:
        return ev.Usage(self.n_prompt, self.n_tokens, self.context_left)

    # -- before the first pass --

    def _open(self) -> ev.Event:
        """Makes all that a run needs, and refuses a prompt that does not fit before anything is computed."""
        prompt, firsts = self._first_tokens()
        texts, settings = self.wording.layout, self.settings
        self.layout.open(self.cache, len(firsts), prompt, self._tokens(texts.header), self._tokens(texts.separator))
        self._layout_is_ours = True
        self.layout.check()
        self.n_prompt = sum(len(tokens) for _, tokens in self.layout.prefills)
        if settings.finisher_tokens:
            self._reserve = len(self._tokens(self.style.finisher.text)) + settings.finisher_tokens
        needed = self.n_prompt + len(firsts[0]) + self._reserve
        if needed > self.cache.n_free:
            raise CacheFull(needed, self.cache.n_free)
        self._make_workers(firsts)
        return ev.RunStarted(
            self.model.description,
            settings.names,
            self.layout.name,
            self.cache.n_ctx,
            settings.seed,
            self.n_prompt,
            settings.date,
        )

    def _first_tokens(self) -> tuple[list[int], list[list[int]]]:
        """The tokens of the prompt, and what each worker feeds first."""
        prompt = self.prompt.tokens(self.model)
        firsts = [self._tokens(self.wording.first(index)) for index in range(len(self.settings.names))]
        if all(firsts):
            return prompt, firsts
        if not prompt:
            raise InvalidArgument("prompt must not be empty: the model has nothing to go on from")
        # Somebody has no words of its own to begin with: all go on from the prompt's last token.
        return prompt[:-1], [[prompt[-1], *first] for first in firsts]

    def _make_workers(self, firsts: list[list[int]]) -> None:
        step = self.style.step
        spans_tokens = len(self._tokens(step.separator)) > 1
        stops = (*self.style.stop.strings, *self.settings.stop)
        for index, (name, tokens) in enumerate(zip(self.settings.names, firsts, strict=True)):
            rule = EndOfStep(step.separator, self.style.sentence_end, spans_tokens)
            worker = Worker(index, name, self.model, self.make_sampler(index), rule, stops)
            self.workers.append(worker)  # at once: close() finds it if the next one fails
            worker.open_step(self.wording.first(index), tokens)
        self.active = list(self.workers)

    def _prefill(self) -> Iterator[ev.Event]:
        """Feeds prompt, header and separator, each alone, in chunks: the run can be left between any two."""
        done, n_batch = 0, self.cache.n_batch
        yield ev.PromptProgress(0, self.n_prompt)
        for block, tokens in self.layout.prefills:
            for at in range(0, len(tokens), n_batch):
                if self.cancelled:
                    return
                chunk, start = tokens[at : at + n_batch], perf_counter()
                self.cache.decode([([block], chunk)])
                self.prompt_s += perf_counter() - start
                done += len(chunk)
                yield ev.PromptProgress(done, self.n_prompt)
        self.context_left = self.cache.n_free
        for worker in self.workers:
            yield ev.StepStarted(worker.name, worker.step, worker.prefix)

    # -- one pass --

    def _timed_pass(self) -> list[ev.Event]:
        start = perf_counter()
        events = self._pass()
        self.generate_s += perf_counter() - start
        return events

    def _pass(self) -> list[ev.Event]:
        """One forward pass of all active workers, and what follows from it."""
        events: list[ev.Event] = []
        feeds = self._collect(events)
        if feeds:
            for (worker, tokens), sampled in zip(feeds, self._next_tokens(feeds), strict=True):
                if sampled is None:
                    del worker.pending[: len(tokens)]
                else:
                    self._take(worker, sampled, events)
            self._settle(feeds, events)
        return events

    def _collect(self, events: list[ev.Event]) -> list[Feed]:
        """What each active worker feeds in this pass."""
        if self.stop_requests:
            self._obey_stops(events)
        self.context_left = self.cache.n_free
        total = sum([len(worker.pending) for worker in self.active])
        if total <= self.cache.n_batch and total <= self.context_left - self._reserve:
            return [(worker, worker.pending) for worker in self.active]
        return self._collect_in_tight_space(events)

    def _collect_in_tight_space(self, events: list[ev.Event]) -> list[Feed]:
        """Not all fits: a worker that the batch has no room for feeds the rest in the next pass; one that the
        cache has no room for is stopped, and its unfinished step makes room for the others."""
        feeds: list[Feed] = []
        promised = 0
        batch_left, later = self.cache.n_batch, len(self.active)
        for worker in list(self.active):
            later -= 1
            if promised + len(worker.pending) > self.cache.n_free - self._reserve:
                self._retire(worker, "cache_full", events)
                continue
            promised += len(worker.pending)
            # One token for each of those who come later: everybody gets on.
            feeds.append((worker, worker.pending[: batch_left - later]))
            batch_left -= len(feeds[-1][1])
        return feeds

    def _next_tokens(self, feeds: list[Feed]) -> list[int | None]:
        """What the workers sample; None where a worker has more to feed."""
        views = [(self._view(worker), tokens) for worker, tokens in feeds]
        samplers = [worker.sampler if len(tokens) == len(worker.pending) else None for worker, tokens in feeds]
        return self._in_engine(partial(self.cache.next_tokens, views, samplers))

    def _in_engine(self, forward: Callable[[], T]) -> T:
        """One forward pass, and what it gives."""
        start = perf_counter()
        result = forward()
        self.decode_s += perf_counter() - start
        self.n_passes += 1
        return result

    def _view(self, worker: Worker) -> list[Any]:
        view = self._views.get(worker.index)
        if view is None:
            view = self._views[worker.index] = self.layout.view(worker.index)
        return view

    def _take(self, worker: Worker, sampled: int, events: list[ev.Event]) -> None:
        token = worker.take(sampled, self.n_passes)
        events.append(token)
        self.n_tokens += 1
        self._since_question += 1
        self._look_for_answer(worker, token)

    def _look_for_answer(self, worker: Worker, token: ev.Token) -> None:
        # Only a token with the last character of what closes an answer can complete one.
        if self.answer is None and token.text and self.style.answer.closes_with[-1:] in token.text:
            text = self.style.find_answer(worker.written)
            self.answer = ev.Answer(text, worker.name) if text else None

    def _settle(self, feeds: list[Feed], events: list[ev.Event]) -> None:
        """Ends workers and steps, in worker order."""
        for worker, _ in feeds:
            if worker.finished:
                self._retire(worker, worker.finished, events)
            elif self.answer:
                self._retire(worker, "answer", events)
            elif worker.step_ended:
                self._next_step(worker, events)

    def _next_step(self, worker: Worker, events: list[ev.Event]) -> None:
        """The step joins the history; the token that ended it is fed first into the new one, then the
        prefix."""
        self._end_step(worker, "end", events)
        self.layout.end_step(worker.index)
        self._views.clear()
        every = self.settings.redundancy_every
        due = bool(every) and len(self.workers) > 1 and self._since_question >= every
        ask = due and bool(self.style.redundancy.question)
        if ask:
            self._since_question = 0
            events.append(ev.RedundancyCheck(worker.name, worker.step + 1))
        prefix = self.wording.prefix(worker.index, worker.step + 1, question=ask)
        worker.open_step(prefix, self._tokens(prefix))
        events.append(ev.StepStarted(worker.name, worker.step, prefix))

    # -- ends --

    def _obey_stops(self, events: list[ev.Event]) -> None:
        # Taken one by one: another thread may be adding to them.
        names = {self.stop_requests.pop() for _ in range(len(self.stop_requests))}
        for worker in [worker for worker in self.active if worker.name in names]:
            self._retire(worker, "stopped", events)

    def _retire(self, worker: Worker, reason: ev.Reason, events: list[ev.Event]) -> None:
        """worker writes no more; the others go on."""
        rest = worker.end_text(self.n_passes)
        if rest:
            events.append(rest)
            self._look_for_answer(worker, rest)
        if worker.step_tokens:
            self._end_step(worker, reason, events)
        if reason not in ("answer", "cancelled"):  # after those, nobody looks at the cache again
            self._retire_blocks(worker, drop=reason == "cache_full" or not worker.step_tokens)
        self.active.remove(worker)
        worker.finished = self.reason = reason
        events.append(ev.WorkerFinished(worker.name, reason))

    def _retire_blocks(self, worker: Worker, drop: bool) -> None:
        if drop:
            self.layout.drop_step(worker.index)
        self.layout.retire(worker.index)
        self._views.clear()

    def _end_step(self, worker: Worker, reason: str, events: list[ev.Event]) -> None:
        events.append(ev.StepEnded(worker.name, worker.step, worker.step_text, worker.step_tokens, reason))

    def _finish(self) -> Iterator[ev.Event]:
        """All workers end; without an answer in the budget, the finisher asks for it."""
        for worker in list(self.active):
            events: list[ev.Event] = []
            self._retire(worker, "cancelled" if self.cancelled else "budget", events)
            yield from events
        if self.answer:
            self.reason = "answer"
        elif self.settings.finisher_tokens and self.reason in ("budget", "cache_full"):
            yield from self._ask_finisher()
        self.context_left = self.cache.n_free
        if self.answer:
            yield self.answer

    def _ask_finisher(self) -> Iterator[ev.Event]:
        """Greedily, in a block of its own that sees all that was written."""
        asked, said, utf8 = self.style.finisher.text, "", Utf8Stream()
        yield ev.FinisherStarted(asked)
        self._finisher_block = self.cache.block("finisher")
        view, pending = self.layout.closing_view(self._finisher_block), self._tokens(asked)
        for _ in range(self.settings.finisher_tokens):
            if self.cancelled:
                return
            start = perf_counter()
            token = int(self._in_engine(partial(self.cache.decode, [(view, pending)]))[0].argmax())
            self.generate_s += perf_counter() - start
            self.n_tokens += 1
            pending = [token]
            piece = "" if self.model.is_eog(token) else utf8.feed(self.model.token_bytes(token))
            said += piece
            yield ev.Token(None, token, piece, self.n_passes)
            answer = self.style.find_answer(asked + said)
            if answer:
                self.answer = ev.Answer(answer, None)
            if answer or self.model.is_eog(token):
                return

    def _tokens(self, text: str) -> list[int]:
        return inner_tokens(self.model, text) if text else []
