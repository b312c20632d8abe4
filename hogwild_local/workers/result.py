"""A whole run as one object."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ..errors import Closed
from ..events import FinisherStarted, Reason, RunEnded, RunStarted, StepEnded, Timings, Token, Usage
from .run import Run


@dataclass(frozen=True, slots=True)
class Result:
    """A whole run. texts: what each worker wrote, without step prefixes; history: all steps, with their
    prefixes, in the order in which they ended; finisher: what it wrote, None if it was not asked; seed and date
    repeat the run."""

    answer: str | None
    texts: Mapping[str, str]
    history: str
    finisher: str | None
    reason: Reason
    seed: int
    timings: Timings
    usage: Usage
    date: str


def collect(run: Run) -> Result:
    """Runs to the end. Raises Closed if close() ended the run."""
    texts: dict[str, list[str]] = {name: [] for name in run.workers}
    steps: list[str] = []
    said: list[str] | None = None
    seed, date = 0, ""
    for event in run:
        match event:
            case RunStarted():
                seed, date = event.seed, event.date
            case Token(worker=str() as worker):
                texts[worker].append(event.text)
            case FinisherStarted():
                said = []
            case Token(worker=None) if said is not None:
                said.append(event.text)
            case StepEnded():
                steps.append(event.text)
            case RunEnded():
                return Result(
                    answer=event.answer,
                    texts={name: "".join(pieces) for name, pieces in texts.items()},
                    history="\n\n".join(steps),
                    finisher=None if said is None else "".join(said),
                    reason=event.reason,
                    seed=seed,
                    timings=event.timings,
                    usage=event.usage,
                    date=date,
                )
    raise Closed("the Hogwild was closed while it ran")
