"""The prompt, and the texts of the layout, before the first pass."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from .. import events as ev
from .context import Context
from .feeds import Feed, Kind
from .worker import Worker


class Prefill:
    """Feeds the layout's prefills, each alone, in chunks of n_batch: the run can be left between any two."""

    kind: Kind = "prompt"

    def __init__(self, run: Context, workers: Sequence[Worker]) -> None:
        self._run = run
        self._workers: Sequence[Worker] = workers
        self._chunks = self._cut(run.cache.n_batch)
        self._done = self._n = 0

    def plan(self) -> list[Feed]:
        feed = next(self._chunks, None)
        if feed is None:
            self._start_steps()
            return []
        self._n = len(feed.tokens)
        self._run.place.spend(self._n)
        return [feed]

    def take(self, tokens: Sequence[int | None]) -> None:
        self._done += self._n
        total = self._run.meter.prompt_tokens
        self._run.tell(ev.PromptProgress(self._done, total))
        if self._done == total:
            self._start_steps()

    def _start_steps(self) -> None:
        """Once."""
        workers, self._workers = self._workers, ()
        self._run.tell(*(ev.StepStarted(worker.name, worker.step, worker.prefix) for worker in workers))

    def _cut(self, n_batch: int) -> Iterator[Feed]:
        for block, tokens in self._run.layout.prefills:
            for at in range(0, len(tokens), n_batch):
                yield Feed([block], tokens[at : at + n_batch])
