"""A whole run as one object."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ..errors import Closed
from ..events import (
    Event,
    FinisherStarted,
    Reason,
    RunStarted,
    Timings,
    Token,
    ToolCall,
    Usage,
    WorkerFinished,
    WorkerJoined,
)
from .transcript import Transcriber, Transcript


@dataclass(frozen=True, slots=True)
class Result:
    """A whole run. texts: what each worker wrote, without step prefixes; history: all steps, with their prefixes, in
    the order in which they ended, and between them what the user said; finisher: what it wrote, None if it was not
    asked; reply: what was said to the user in the end, None if nothing was; tool_calls: the calls that the reply makes;
    seed and date repeat the run; transcript: who wrote which step, and how each part ended."""

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
    transcript: Transcript
    tool_calls: tuple[ToolCall, ...] = ()


class Collector:
    """Puts the events of a run together."""

    def __init__(self) -> None:
        self._transcriber = Transcriber()
        self._texts: dict[str, list[str]] = {}
        self._finisher: list[str] | None = None

    def take(self, event: Event) -> None:
        self._transcriber.take(event)
        match event:
            case RunStarted():
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

    def result(self) -> Result:
        """Raises Closed if the run was closed."""
        transcript = self._transcriber.transcript()
        if transcript.reason is None:
            raise Closed("the Hogwild was closed while it ran")
        return Result(
            answer=transcript.answer,
            texts={name: "".join(pieces) for name, pieces in self._texts.items()},
            history=transcript.history,
            finisher=None if self._finisher is None else "".join(self._finisher),
            reply=transcript.reply,
            reason=transcript.reason,
            seed=transcript.seed or 0,
            timings=transcript.timings,
            usage=transcript.usage,
            date=transcript.date,
            transcript=transcript,
            tool_calls=transcript.tool_calls,
        )
