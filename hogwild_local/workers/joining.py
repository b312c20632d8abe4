"""Workers who join a run that is going on."""

from __future__ import annotations

from collections.abc import Callable

from .. import events as ev
from ..engine.protocols import SamplerLike
from ..options import Worker
from .asides import Aside
from .context import Context
from .opening import role_tokens
from .team import Team


class Joining(Aside):
    """One of them, who begins once its role is fed. It samples by its number: the others' random numbers stay."""

    name = "role"

    def __init__(
        self,
        run: Context,
        team: Team,
        done: Callable[[], object],
        worker: Worker,
        make_sampler: Callable[[Worker, int], SamplerLike],
        leave_out: Callable[[str], object],
    ) -> None:
        """leave_out: told the name, if it does not join."""
        super().__init__(run, team, done)
        self._worker, self._make_sampler, self._leave_out = worker, make_sampler, leave_out
        team.n_expected += 1

    def begin(self) -> None:
        self.pending = role_tokens(self._run.model, self._run.wording, self._worker)
        self._sampler = self._make_sampler(self._worker, len(self._team.workers))

    def finish(self) -> None:
        run, name = self._run, self._worker.name
        run.wording.join(name)
        index = self._team.change(lambda: run.layout.join(self.block))
        run.layout.check()
        self._team.n_expected -= 1
        run.tell(ev.WorkerJoined(name, run.meter.n_pass))
        # Where the style has no words for a beginning, it begins as a step that follows another one.
        first = run.tokens(run.wording.first(index)) or run.tokens(run.wording.style.step.separator)
        self._team.join(self._worker, self._sampler, first)
        run.tell(ev.StepStarted(name, 1, run.wording.first(index)))

    def tell_refused(self, reason: ev.Refusal, message: str) -> None:
        self._team.n_expected -= 1
        self._team.to_stop.discard(self._worker.name)
        self._leave_out(self._worker.name)
        self._run.tell(ev.WorkerRefused(self._worker.name, reason, message))
