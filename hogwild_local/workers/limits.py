"""What a run's workers and prompts allow."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ..errors import InvalidArgument
from ..options import Worker, as_worker
from ..prompts.style import PromptStyle
from .writer import default_names


@dataclass(frozen=True, slots=True)
class Limits:
    """Each method raises InvalidArgument, which says what to do. n_batch: most tokens of a pass."""

    n_batch: int
    style: PromptStyle

    def workers(self, asked: int | Sequence[str | Worker]) -> list[Worker]:
        """These, or so many, for whom a pass and the prompts have room and words."""
        self.check_number(asked if isinstance(asked, int) else len(asked))
        made = list(map(as_worker, default_names(asked) if isinstance(asked, int) else asked))
        self.check_roles(made)
        return made

    def check_number(self, n: int) -> None:
        """Of workers."""
        if n > self.n_batch:
            raise InvalidArgument(f"workers: {n} of them need n_batch >= {n}, not {self.n_batch}")
        most = self.style.workers.most
        if most and n > most:
            raise InvalidArgument(f"workers: the prompts are for at most {most}, not {n}")

    def check_roles(self, workers: Iterable[Worker]) -> None:
        for worker in workers:
            if worker.role is not None and not self.style.role.text:
                raise InvalidArgument(
                    f"role of worker {worker.name!r}: the prompts have no words for roles. Give them a table [role], "
                    "with a text"
                )

    def check_said(self) -> None:
        """That the user can say something."""
        if not self.style.said.text:
            raise InvalidArgument(
                "say: the prompts have no words for what a user says to workers. Give them a table [said], with a text"
            )
