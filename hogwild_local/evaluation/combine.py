"""Verdicts: the records of a setting's replicas on one problem, with one budget, made into one."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

from .records import Record
from .settings import Combine


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a setting says of a problem within a budget. passes: sequential ones; replicas run side by side."""

    answer: str | None
    correct: bool
    by_finisher: bool
    passes: int


def combine(records: Sequence[Record], how: Combine, vote: Callable[[str], Hashable]) -> Verdict:
    """records: of one problem and budget, one of each replica, at least one. vote: answers with the same vote are the
    same.

    "only" and "first": the answer that comes after the fewest passes; of two that come at once, the one that was not
    asked for by the finisher, then that of the lower replica. "majority": the most frequent answer; of two that are
    equally frequent, the one that was first given. It takes as long as the longest run, since all are heard.
    """
    answered = [record for record in records if record.answer is not None]
    answered.sort(key=lambda record: (record.passes, record.by_finisher, record.replica))
    longest = max(record.passes for record in records)
    if not answered:
        return Verdict(None, False, False, longest)
    winner = answered[0]
    if how == "majority":
        votes: dict[Hashable, list[Record]] = {}
        for record in answered:
            votes.setdefault(vote(record.answer or ""), []).append(record)
        winner = max(votes.values(), key=len)[0]  # the first of the longest lists, which are in order of time
    passes = longest if how == "majority" else winner.passes
    return Verdict(winner.answer, winner.correct, winner.by_finisher, passes)
