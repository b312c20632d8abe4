"""What the user says while the workers work."""

from __future__ import annotations

from collections.abc import Callable

from .. import events as ev
from ..prompts.readable import check_readable
from .asides import Aside
from .commands import Say
from .context import Context
from .team import Team


class Saying(Aside):
    """It joins the history: all read it from the next pass on."""

    name = "said"

    def __init__(self, run: Context, team: Team, done: Callable[[], object], say: Say) -> None:
        super().__init__(run, team, done)
        self._say, self._shown = say, ""

    def begin(self) -> None:
        check_readable(self._run.model, [self._say.text], "say")
        self._shown = self._run.wording.said(self._say.text, self._say.to)
        self.pending = self._run.tokens(self._shown)

    def finish(self) -> None:
        if self.block is not None:
            self._team.change(lambda: self._run.layout.say(self.block))
        self._run.tell(ev.Said(self._say.text, self._say.to, self._shown, self._run.meter.n_pass))

    def tell_refused(self, reason: ev.Refusal, message: str) -> None:
        self._run.tell(ev.NotSaid(self._say.text, self._say.to, reason, message))
