"""The passes of the workers: what each feeds, and who has to end because not all fits."""

from __future__ import annotations

from collections.abc import Sequence

from ..engine.protocols import SamplerLike
from ..engine.views import Sampled
from .asides import Asides
from .context import Context
from .feeds import Feed, Kind
from .opening import REPLY_KEPT, Opening
from .team import Team
from .writer import Writer

MOST_FOR_REPLY = 4
"""Workers who write until the room is used up leave a reply at most this part of what the run can have: a 4th."""


class Passes:
    """Passes of all active workers, and of what is fed beside them, until none is left."""

    def __init__(self, run: Context, team: Team, asides: Asides, opening: Opening) -> None:
        self._run, self._team, self._asides, self._opening = run, team, asides, opening
        self._fed: list[tuple[Writer, list[int]]] = []
        self._most = run.cache.n_batch
        """Tokens of the next pass."""

    @property
    def kind(self) -> Kind:
        """Where all that feed are about to leave, nothing is sampled: such a pass is not of the budget."""
        return "closing" if all(worker.leaving for worker, _ in self._fed) else "workers"

    def plan(self) -> list[Feed]:
        team = self._team
        has_budget = not self._is_spent()
        if team.answer:
            team.leave_all("answer")
        if has_budget and not team.is_over:
            self._asides.begin()
        team.leave_if_stopped()
        if not has_budget:
            team.leave_all("budget")
        self._fed, self._most = [], max(self._most, len(team.active))
        # No pass has room for all workers and for more: then it has a pass of its own.
        feeds = self._beside(self._most) if len(team.active) >= self._most else []
        if not feeds:
            self._fed = self._collect()
            feeds = [Feed(team.view(worker), tokens, self._sampler(worker, tokens)) for worker, tokens in self._fed]
            feeds += self._beside(self._most - self._n_fed)
        return feeds

    def _is_spent(self) -> bool:
        """Whether the budget is: so many passes, or the room, where no number is given. Then all end together, with
        what they have written, before one would have to make room for the others."""
        run, active = self._run, self._team.active
        if run.settings.max_passes is not None:
            return run.meter.passes >= run.settings.max_passes
        # All of a reply has room, if that is not too much: what is kept for it from everybody is its beginning.
        left = run.place.left
        most = (run.place.n_cells + left) // MOST_FOR_REPLY
        reply = max(0, min(run.settings.reply_tokens, most) - REPLY_KEPT)
        needed = sum([len(worker.pending) for worker in active]) + self._opening.kept(len(active)) + reply
        return run.meter.passes > 0 and left < needed

    def take(self, tokens: Sequence[Sampled | None]) -> None:
        self._most = self._run.cache.n_batch
        for (worker, fed), sampled in zip(self._fed, tokens[: len(self._fed)], strict=True):
            self._team.n_fed += len(fed)
            if sampled is not None:
                self._team.take(worker, sampled)
            else:
                del worker.pending[: len(fed)]
        # First: it was fed behind the history as that was before the steps that end now.
        self._asides.take()
        self._team.settle([worker for worker, _ in self._fed])

    def undo(self, n_fed: int) -> None:
        if self._fed:
            self._run.place.shrink(self._n_fed - n_fed)
            self._team.n_fed += n_fed
            del self._fed[0][0].pending[:n_fed]
        else:
            self._asides.undo(n_fed)

    def give_way(self) -> bool:
        """A long text slides through a window in small parts. If one token of each is too much, what is fed beside the
        workers has no room, and then the last worker."""
        n_views, n = len(self._fed) + (self._asides.n > 0), self._n_fed + self._asides.n
        if n > n_views:
            self._most = max(n_views, n // 2)
        elif not self._asides.give_way():
            last = self._fed[-1][0]
            self._team.retire(last, last.leaving or "cache_full")
        return True

    @property
    def _n_fed(self) -> int:
        """Tokens of the workers in this pass."""
        return sum([len(tokens) for _, tokens in self._fed])

    def _sampler(self, worker: Writer, tokens: Sequence[int]) -> SamplerLike | None:
        return None if worker.leaving or len(tokens) < len(worker.pending) else worker.sampler

    def _beside(self, n: int) -> list[Feed]:
        """What is fed beside the workers, of at most n tokens; when all have ended, only who is to join."""
        team = self._team
        is_of_use = not team.is_over and (team.active or team.n_expected)
        return self._asides.plan(n if is_of_use else 0, self._grow)

    def _collect(self) -> list[tuple[Writer, list[int]]]:
        """What each active worker feeds in this pass."""
        active = self._team.active
        total = sum([len(worker.pending) for worker in active])
        if total <= self._most and self._grow(total):
            return [(worker, worker.pending) for worker in active]
        return self._collect_in_tight_space()

    def _collect_in_tight_space(self) -> list[tuple[Writer, list[int]]]:
        """Not all fits: a worker that the batch has no room for feeds the rest in the next pass; one that the cache
        has no room for is stopped, and its unfinished step makes room for the others."""
        fed: list[tuple[Writer, list[int]]] = []
        batch_left, later = self._most, len(self._team.active)
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
