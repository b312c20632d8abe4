"""A whole run as one object."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ..errors import Closed
from ..events import (
    Event,
    FinisherStarted,
    Reason,
    ReplyEnded,
    RunEnded,
    RunStarted,
    Said,
    StepEnded,
    Timings,
    Token,
    Usage,
    WorkerFinished,
    WorkerJoined,
)


@dataclass(frozen=True, slots=True)
class Result:
    """A whole run. texts: what each worker wrote, without step prefixes; history: all steps, with their prefixes, in
    the order in which they ended, and between them what the user said; finisher: what it wrote, None if it was not
    asked; reply: what was said to the user in the end, None if nothing was; seed and date repeat the run."""

    answer: str | None
    texts: Mapping[str, str]
    history: str
    finisher: str | None
    reply: str | None
    reason: Reason
    seed: int
    timings: Timings
    usage: Usage
    date: str


class Collector:
    """Puts the events of a run together."""

    def __init__(self) -> None:
        self._texts: dict[str, list[str]] = {}
        self._steps: list[str] = []
        self._finisher: list[str] | None = None
        self._reply: str | None = None
        self._started: RunStarted | None = None
        self._ended: RunEnded | None = None

    def take(self, event: Event) -> None:
        match event:
            case RunStarted():
                self._started = event
                self._texts = {name: [] for name in event.workers}
            case Token(worker=str() as worker):
                self._texts[worker].append(event.text)
            case WorkerJoined():
                self._texts[event.worker] = []
            case WorkerFinished():  # of a run that was cancelled before it began: the first that is heard of them
                self._texts.setdefault(event.worker, [])
            case FinisherStarted():
                self._finisher = []
            case Token(worker=None) if self._finisher is not None:
                self._finisher.append(event.text)
            case ReplyEnded():
                self._reply = event.text
            case StepEnded():
                self._steps.append(event.text)
            case Said():
                self._steps.append(event.shown.strip())
            case RunEnded():
                self._ended = event

    def result(self) -> Result:
        """Raises Closed if the run was closed."""
        if self._ended is None:
            raise Closed("the Hogwild was closed while it ran")
        return Result(
            answer=self._ended.answer,
            texts={name: "".join(pieces) for name, pieces in self._texts.items()},
            history="\n\n".join(self._steps),
            finisher=None if self._finisher is None else "".join(self._finisher),
            reply=self._reply,
            reason=self._ended.reason,
            seed=self._started.seed if self._started else 0,
            timings=self._ended.timings,
            usage=self._ended.usage,
            date=self._started.date if self._started else "",
        )
