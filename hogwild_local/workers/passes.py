"""The passes of the workers: what each feeds, and who has to end because not all fits."""

from __future__ import annotations

from collections.abc import Sequence

from .context import Context
from .feeds import Feed, Kind
from .opening import Opening
from .team import Team
from .worker import Worker


class Passes:
    """Passes of all active workers, until none is left."""

    def __init__(self, run: Context, team: Team, opening: Opening) -> None:
        self._run, self._team, self._opening = run, team, opening
        self._fed: list[tuple[Worker, list[int]]] = []

    @property
    def kind(self) -> Kind:
        """Where all that feed are about to leave, nothing is sampled: such a pass is not of the budget."""
        return "closing" if all(worker.leaving for worker, _ in self._fed) else "workers"

    def plan(self) -> list[Feed]:
        run, team = self._run, self._team
        if team.answer:
            team.leave(list(team.active), "answer")
        team.leave_if_stopped()
        if run.meter.passes >= run.settings.max_passes:
            team.leave(list(team.active), "budget")
        self._fed = self._collect()
        return [
            Feed(
                team.view(worker),
                tokens,
                None if worker.leaving or len(tokens) < len(worker.pending) else worker.sampler,
            )
            for worker, tokens in self._fed
        ]

    def take(self, tokens: Sequence[int | None]) -> None:
        for (worker, fed), sampled in zip(self._fed, tokens, strict=True):
            self._team.n_fed += len(fed)
            if sampled is not None:
                self._team.take(worker, sampled)
            else:
                del worker.pending[: len(fed)]
        self._team.settle([worker for worker, _ in self._fed])

    def _collect(self) -> list[tuple[Worker, list[int]]]:
        """What each active worker feeds in this pass."""
        active = self._team.active
        total = sum([len(worker.pending) for worker in active])
        if total <= self._run.cache.n_batch and self._grow(total):
            return [(worker, worker.pending) for worker in active]
        return self._collect_in_tight_space()

    def _collect_in_tight_space(self) -> list[tuple[Worker, list[int]]]:
        """Not all fits: a worker that the batch has no room for feeds the rest in the next pass; one that the cache
        has no room for is stopped, and its unfinished step makes room for the others."""
        fed: list[tuple[Worker, list[int]]] = []
        batch_left, later = self._run.cache.n_batch, len(self._team.active)
        for worker in list(self._team.active):
            later -= 1
            # One token for each of those who come later: everybody gets on.
            tokens = worker.pending[: batch_left - later]
            if not self._grow(len(tokens)):
                self._team.retire(worker, worker.leaving or "cache_full")
                continue
            fed.append((worker, tokens))
            batch_left -= len(tokens)
        return fed

    def _grow(self, n: int) -> bool:
        n_staying = sum([worker.leaving is None for worker in self._team.active])
        return self._run.place.grow(n, self._opening.kept(n_staying))
