"""The transcript of a run: what was written by whom, in which order, and how it ended. It is made of events, and can be
had at any time, also of a run that was left in the middle."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from .. import events as ev

WHY: dict[str | None, str] = {
    "answer": "an answer was found",
    "closed": "enough of the workers had closed their thoughts",
    "eos": "every worker had said end of text",
    "stop": "a stop string was written",
    "stopped": "the workers were stopped",
    "cache_full": "the cache had no room for more",
    "budget": "the budget of passes was used up",
    "cancelled": "it was cancelled",
    "end": "the step was finished",
    "length": "it had as many tokens as it may have",
    None: "it was left before its end",
}
"""The reasons of events, in words."""


@dataclass(frozen=True, slots=True)
class Step:
    """A step of a worker: its number, from 1, and its text, prefix included. reason: as in StepEnded, or None where it
    was still being written. worker None: what the user said meanwhile."""

    worker: str | None
    step: int
    text: str
    reason: str | None


@dataclass(frozen=True, slots=True)
class Transcript:
    """Steps in the order in which they ended, unfinished ones last, as they began. finished: why each worker ended;
    finisher: what asks for the answer, and what was written behind it; tool_calls: those that the reply makes;
    answered_by: None for finisher and reply. reason and reply_reason are None for what has no end, or was not there;
    seed is None for a run that did not begin."""

    model: str
    workers: tuple[str, ...]
    layout: str
    seed: int | None
    date: str
    steps: tuple[Step, ...]
    finished: Mapping[str, ev.Reason]
    finisher: str | None
    reply: str | None
    tool_calls: tuple[ev.ToolCall, ...]
    reply_reason: ev.ReplyReason | None
    answer: str | None
    answered_by: str | None
    reason: ev.Reason | None
    timings: ev.Timings
    usage: ev.Usage

    @property
    def said(self) -> str | None:
        """What is said to the user: the reply, or the answer where prompts have no words for one."""
        return self.answer if self.reply is None else self.reply

    @property
    def message(self) -> dict[str, Any] | None:
        """What is said, with the calls of tools, as a message of OpenAI's form; None: nothing is."""
        calls = {"tool_calls": [call.in_message() for call in self.tool_calls]} if self.tool_calls else {}
        return None if self.said is None else {"role": "assistant", "content": self.said, **calls}

    @property
    def history(self) -> str:
        """All steps that have ended, an empty line between them."""
        return "\n\n".join(step.text for step in self.steps if step.reason is not None)

    @property
    def parts(self) -> list[tuple[str, str]]:
        """All that was written, each part with a title: steps and finisher, not the reply."""
        parts = [(f"{step.worker}, step {step.step}" if step.worker else "You", step.text) for step in self.steps]
        return parts + ([] if self.finisher is None else [("Finisher", self.finisher)])

    @property
    def why(self) -> str:
        """Why the run ended, in words, and why its reply did, where that was cut off."""
        cut = self.reply_reason not in (None, "eos", "stop", self.reason)
        return WHY[self.reason] + (f"; the reply ended because {WHY[self.reply_reason]}" if cut else "")

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)


class Transcriber:
    """Writes down the events of a run."""

    def __init__(self) -> None:
        self._started: ev.RunStarted | None = None
        self._workers: list[str] = []
        self._figures: ev.PassEnded | ev.RunEnded | None = None
        self._reason: ev.Reason | None = None
        self._steps: list[Step] = []
        self._open: dict[str, tuple[int, list[str]]] = {}
        """Of each worker, the step that it is writing."""
        self._finished: dict[str, ev.Reason] = {}
        self._finisher: list[str] | None = None
        self._reply: list[str] | None = None
        self._tool_calls: list[ev.ToolCall] = []
        self._reply_reason: ev.ReplyReason | None = None
        self._answer: ev.Answer | None = None

    def take(self, event: ev.Event) -> None:
        match event:
            case ev.RunStarted():
                self._started, self._workers = event, list(event.workers)
            case ev.StepStarted():
                self._open[event.worker] = (event.step, [event.text])
            case ev.Token(worker=str() as worker):
                self._open[worker][1].append(event.text)
            case ev.StepEnded():
                self._open.pop(event.worker, None)
                self._steps.append(Step(event.worker, event.step, event.text, event.reason))
            case ev.WorkerJoined():
                self._workers.append(event.worker)
            case ev.Said():
                self._steps.append(Step(None, 0, event.shown.strip(), "end"))
            case ev.WorkerFinished():
                self._open.pop(event.worker, None)
                self._finished[event.worker] = event.reason
            case ev.FinisherStarted():
                self._finisher = [event.text]
            case ev.Token(worker=None) if self._finisher is not None:
                self._finisher.append(event.text)
            case ev.ReplyStarted():
                self._reply = []
            case ev.ReplyToken() if self._reply is not None:
                self._reply.append(event.text)
            case ev.ToolCall():
                self._tool_calls.append(event)
            case ev.ReplyEnded():
                self._reply, self._reply_reason = [event.text], event.reason
            case ev.Answer():
                self._answer = event
            case ev.PassEnded():
                self._figures = event
            case ev.RunEnded():
                self._figures, self._reason = event, event.reason

    def transcript(self) -> Transcript:
        """All up to now."""
        started, figures, answer = self._started, self._figures, self._answer
        pieces = ((worker, step, "".join(texts).strip()) for worker, (step, texts) in self._open.items())
        unfinished = [Step(worker, step, text, None) for worker, step, text in pieces if text]
        return Transcript(
            model=started.model if started else "",
            workers=tuple(self._workers or self._finished),
            layout=started.layout if started else "",
            seed=started.seed if started else None,
            date=started.date if started else "",
            steps=(*self._steps, *unfinished),
            finished=dict(self._finished),
            finisher=_joined(self._finisher),
            reply=_joined(self._reply),
            tool_calls=tuple(self._tool_calls),
            reply_reason=self._reply_reason,
            answer=answer.text if answer else None,
            answered_by=answer.worker if answer else None,
            reason=self._reason,
            timings=figures.timings if figures else ev.Timings(),
            usage=figures.usage if figures else ev.Usage(),
        )


def _joined(pieces: list[str] | None) -> str | None:
    return None if pieces is None else "".join(pieces)
