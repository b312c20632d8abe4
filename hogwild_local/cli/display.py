"""How a run looks: one JSON event a line, or plain lines; live.py has the picture for a terminal.

An Output is a context manager that is fed the events of one run; leaving it, however that happens, shows what
was held back, and how the run ended.
"""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from contextlib import AbstractContextManager
from typing import TextIO

from .. import events as ev
from ..workers.transcript import Transcriber, Transcript
from .ending import last_lines
from .terminal import printable


class Output(AbstractContextManager["Output"], ABC):
    """Shows the events of one run, and writes them down."""

    def __init__(self) -> None:
        self._transcriber = Transcriber()

    @property
    def transcript(self) -> Transcript:
        """All up to now."""
        return self._transcriber.transcript()

    def feed(self, event: ev.Event) -> None:
        """Shows the next event."""
        self._transcriber.take(event)
        self._show(event)

    @abstractmethod
    def _show(self, event: ev.Event) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self.close(error)

    def close(self, error: BaseException | None = None) -> None:
        """Shows what is held back, and the end. error: what ended the run."""


class JsonOutput(Output):
    """One JSON object a line, flushed, so that a reader of the pipe sees each token as it is made."""

    def __init__(self, file: TextIO | None = None) -> None:
        super().__init__()
        self._file = file or sys.stdout

    def _show(self, event: ev.Event) -> None:
        print(event.to_json(), file=self._file, flush=True)


class PlainOutput(Output):
    """Lines that begin with the worker's name. A line appears when it is complete, so workers never mix in
    one."""

    def __init__(self, file: TextIO | None = None, of_turn: bool = False) -> None:
        """of_turn: the run is one of several, and little is said of its end."""
        super().__init__()
        self._file, self._of_turn = file or sys.stdout, of_turn
        self._lines: dict[str, str] = {}

    def _show(self, event: ev.Event) -> None:
        match event:
            case ev.StepStarted():
                self._flush(event.worker)
                self._write(event.worker, event.text)
            case ev.Token():
                self._write(event.worker or "finisher", event.text)
            case ev.Said():
                self._print(f"you: {event.text}")
            case ev.NotSaid():
                self._print(f"you: [{event.message}]")
            case ev.WorkerRefused():
                self._print(f"{event.worker}: [{event.message}]")
            case ev.WorkerFinished():
                self._flush(event.worker)
                self._print(f"{event.worker}: [{event.reason}]")
            case ev.FinisherStarted():
                self._write("finisher", event.text)
            case ev.ReplyToken():
                self._write("reply", event.text)
            case ev.ToolCall():
                self._flush("reply")
                self._print(f"reply: [calls {event.name} with {event.arguments}]")

    def close(self, error: BaseException | None = None) -> None:
        for worker in list(self._lines):
            self._flush(worker)
        for line in last_lines(self.transcript, error, self._of_turn):
            self._print(line)

    def _write(self, worker: str, text: str) -> None:
        *lines, rest = (self._lines.get(worker, "") + text).split("\n")
        for line in lines:
            self._lines[worker] = line
            self._flush(worker)
        self._lines[worker] = rest

    def _flush(self, worker: str) -> None:
        line = self._lines.pop(worker, "")
        if line.strip():
            self._print(f"{worker}: {line}")

    def _print(self, line: str) -> None:
        print(printable(line), file=self._file, flush=True)
