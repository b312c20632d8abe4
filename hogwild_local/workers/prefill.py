"""The prompt, and the texts of the layout, before the first pass."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

from .. import events as ev
from ..engine.views import Sampled
from ..errors import HogwildError
from .context import Context
from .feeds import Feed, Kind
from .writer import Writer

SMALL = 128
"""Texts that have so many tokens together share a pass. Larger ones don't: ranks of run-ahead share a long one."""


class Prefill:
    """Feeds the layout's prefills, one after the other, in chunks of n_batch: the run can be left between any two. What
    it feeds of the prompt is of use to later runs."""

    kind: Kind = "prompt"

    def __init__(self, run: Context, workers: Sequence[Writer]) -> None:
        self._run = run
        self._workers: Sequence[Writer] = workers
        self._keeps = run.settings.cache_prompt
        self._chunks = self._cut(run.cache.n_batch)
        self._done, self._n = run.meter.cached_tokens, 0

    def plan(self) -> list[Feed]:
        feeds = next(self._chunks, [])
        if not feeds:
            self._start_steps()
            return []
        self._n = sum([len(feed.tokens) for feed in feeds])
        self._run.place.spend(self._n)
        n_later = self._run.meter.prompt_tokens - self._done - self._n
        return [feed._replace(n_later=n_later) for feed in feeds]

    def take(self, tokens: Sequence[Sampled | None]) -> None:
        self._done += self._n
        total = self._run.meter.prompt_tokens
        self._run.tell(ev.PromptProgress(self._done, total))
        if self._done == total:
            self._start_steps()

    def undo(self, n_fed: int) -> None:
        self._run.place.give_back(self._n - n_fed)
        self._done += n_fed
        self._chunks = self._cut(self._run.cache.n_batch)

    def give_way(self) -> bool:
        """As for other cells, which a run that begins is not short of, it waits for other runs."""
        return self._run.place.wait_for_others()

    def keep_prompt(self) -> None:
        """Gives what was fed of the prompt to later runs. Once."""
        keeps, self._keeps = self._keeps, False
        with contextlib.suppress(HogwildError):  # the engine has ended, and whoever needs it will say so
            if keeps and (prompt := self._run.layout.part_from_prompt()):
                self._run.place.share(prompt)

    def _start_steps(self) -> None:
        """Once."""
        self.keep_prompt()
        workers, self._workers = self._workers, ()
        self._run.tell(*(ev.StepStarted(worker.name, worker.step, worker.prefix) for worker in workers))

    def _cut(self, n_batch: int) -> Iterator[list[Feed]]:
        """Small ones together: each pass reads all weights."""
        layout, n_most = self._run.layout, min(SMALL, n_batch)
        feeds: list[Feed] = []
        n = 0
        for block, tokens in layout.prefills:
            for at in range(len(block), len(tokens), n_batch):
                part = tokens[at : at + n_batch]
                if feeds and n + len(part) > n_most:
                    yield feeds
                    feeds, n = [], 0
                feeds.append(Feed(layout.prefill_view(block), part))
                n += len(part)
        if feeds:
            yield feeds
