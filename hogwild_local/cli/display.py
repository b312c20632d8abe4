"""How a run looks: one JSON event a line, plain lines, or workers side by side on a terminal.

An Output is a context manager that is fed the events of one run; leaving it, however that happens, shows what
was held back and restores the terminal.
"""

from __future__ import annotations

import sys
import threading
from abc import ABC, abstractmethod
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, TextIO

from .. import events as ev
from ..workers.run import Run
from .terminal import printable

if TYPE_CHECKING:
    from rich.console import Console, RenderableType


Figures = ev.PassEnded | ev.RunEnded
"""What tells timings and usage of a run."""


def last_lines(figures: Figures | None, answer: str | None) -> list[str]:
    """The answer, if there is one, and the timings of a run that has made a pass."""
    lines = [] if answer is None else [f"Answer: {answer}"]
    if figures is not None:
        timings, usage = figures.timings, figures.usage
        lines.append(
            f"{timings.passes + timings.closing_passes} passes, {usage.completion_tokens} tokens "
            f"in {timings.generate_ms / 1e3:.2f} s: {timings.tokens_per_second:.1f} tokens/s, "
            f"{timings.ms_per_pass:.1f} ms a pass; "
            f"prompt: {usage.prompt_tokens} tokens in {timings.prompt_ms / 1e3:.2f} s; "
            f"context left: {usage.context_left} tokens"
        )
    return lines


class Output(AbstractContextManager["Output"], ABC):
    """Shows the events of one run."""

    @abstractmethod
    def feed(self, event: ev.Event) -> None:
        """Shows the next event."""

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Shows what is held back, and restores the terminal."""


class JsonOutput(Output):
    """One JSON object a line, flushed, so that a reader of the pipe sees each token as it is made."""

    def __init__(self, file: TextIO | None = None) -> None:
        self._file = file or sys.stdout

    def feed(self, event: ev.Event) -> None:
        print(event.to_json(), file=self._file, flush=True)


class PlainOutput(Output):
    """Lines that begin with the worker's name. A line appears when it is complete, so workers never mix in
    one."""

    def __init__(self, file: TextIO | None = None) -> None:
        self._figures: Figures | None = None
        self._file = file or sys.stdout
        self._lines: dict[str, str] = {}
        self._answer: str | None = None

    def feed(self, event: ev.Event) -> None:
        match event:
            case ev.StepStarted():
                self._flush(event.worker)
                self._write(event.worker, event.text)
            case ev.Token():
                self._write(event.worker or "finisher", event.text)
            case ev.WorkerFinished():
                self._flush(event.worker)
                self._print(f"{event.worker}: [{event.reason}]")
            case ev.FinisherStarted():
                self._write("finisher", event.text)
            case ev.ReplyToken():
                self._write("reply", event.text)
            case ev.Answer():
                self._answer = event.text
            case ev.PassEnded() | ev.RunEnded():
                self._figures = event

    def close(self) -> None:
        for worker in list(self._lines):
            self._flush(worker)
        for line in last_lines(self._figures, self._answer):
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


def shown(run: Run, plain: bool) -> Output:
    """Workers side by side where there is a terminal; plain: nowhere."""
    from rich.console import Console

    console = Console()
    return PlainOutput() if plain or not console.is_terminal else LiveOutput(run, console)


class LiveOutput(Output):
    """The history above, the workers' steps side by side below it, a status line at the bottom."""

    # Columns narrower than this are hard to read: then workers are stacked in rows, if those fit.
    MIN_WIDTH, LEAST_WIDTH = 28, 12
    # No screen shows more of a text than this; what lies before it need not be wrapped again and again.
    SHOWN_CHARS = 6000

    def __init__(self, run: Run, console: Console) -> None:
        from rich.live import Live

        self._figures: Figures | None = None
        self._console = console
        self._history = ""
        self._steps: dict[str, str] = dict.fromkeys(run.workers, "")
        self._reasons: dict[str, str] = {}
        self._finisher = ""
        self._reply: str | None = None
        self._prompt = ""
        self._answer: str | None = None
        self._lock = threading.Lock()
        # Drawn by a thread of its own, fifteen times a second: showing costs the run next to nothing.
        self._live = Live(get_renderable=self.render, console=console, refresh_per_second=15, auto_refresh=True)

    def __enter__(self) -> LiveOutput:
        self._live.start()
        return self

    def feed(self, event: ev.Event) -> None:
        with self._lock:
            self._take(event)

    def close(self) -> None:
        self._live.stop()
        for line in last_lines(self._figures, self._answer):
            self._console.print(printable(line), markup=False, highlight=False)

    def _take(self, event: ev.Event) -> None:
        match event:
            case ev.RunQueued():
                self._prompt = f"waiting for {event.position} other run{'s' if event.position > 1 else ''}"
            case ev.PromptProgress():
                self._prompt = f"prompt {event.done}/{event.total}" if event.done < event.total else ""
            case ev.StepStarted():
                self._steps[event.worker] = event.text.lstrip()
            case ev.Token(worker=None):
                self._finisher += event.text
            case ev.Token(worker=str() as worker):
                self._steps[worker] += event.text
            case ev.StepEnded():
                self._history = f"{self._history}{event.text}\n\n"[-self.SHOWN_CHARS :]
                self._steps[event.worker] = ""
            case ev.WorkerFinished():
                self._reasons[event.worker] = event.reason
            case ev.FinisherStarted():
                self._finisher = event.text.lstrip()
            case ev.ReplyStarted():
                self._reply = ""
            case ev.ReplyToken():
                self._reply = (self._reply or "") + event.text
            case ev.Answer():
                self._answer = event.text
            case ev.PassEnded() | ev.RunEnded():
                self._figures = event

    def render(self) -> RenderableType:
        """The frame as it is now, for the console's present size."""
        from rich.console import Group
        from rich.panel import Panel
        from rich.table import Table
        from rich.text import Text

        width, height = self._console.size
        per_row, cell_height, history_height = self._arrange(width, height - 2)
        if self._reply is not None:
            return self._render_reply(width, height - 2)
        with self._lock:
            history = self._history + self._finisher
            cells = [
                Panel(
                    self._tail(step, width // per_row - 4, cell_height - 2),
                    title=Text(printable(name + (f" [{self._reasons[name]}]" if name in self._reasons else ""))),
                    height=cell_height,
                )
                for name, step in self._steps.items()
            ]
        grid = Table.grid(expand=True)
        for _ in range(per_row):
            grid.add_column(ratio=1)
        for at in range(0, len(cells), per_row):
            grid.add_row(*cells[at : at + per_row])
        parts: list[RenderableType] = [grid, Text(self._status(), no_wrap=True, overflow="ellipsis")]
        if history_height > 2:
            tail = self._tail(history, width - 4, history_height - 2)
            parts.insert(0, Panel(tail, title="history", height=history_height))
        return Group(*parts)

    def _render_reply(self, width: int, height: int) -> RenderableType:
        """The work is done: its end above, and what is said to the user."""
        from rich.console import Group
        from rich.panel import Panel
        from rich.text import Text

        with self._lock:
            texts = {"history": self._history + self._finisher, "reply": self._reply or ""}
        heights = {"history": height // 3, "reply": height - height // 3}
        panels = [
            Panel(self._tail(text, width - 4, heights[title] - 2), title=title, height=heights[title])
            for title, text in texts.items()
        ]
        return Group(*panels, Text(self._status(), no_wrap=True, overflow="ellipsis"))

    def _arrange(self, width: int, height: int) -> tuple[int, int, int]:
        """Workers a row, height of a worker's cell, height of the history: as wide as readable, as high as
        fits."""
        n = len(self._steps)
        per_row = min(n, max(1, width // self.MIN_WIDTH))
        while -(-n // per_row) * 3 > height and per_row < min(n, width // self.LEAST_WIDTH):
            per_row += 1
        rows = -(-n // per_row)
        history = height // 3 if height - rows * 3 >= height // 3 else 0
        return per_row, max(3, (height - history) // rows), history

    def _tail(self, text: str, width: int, lines: int) -> RenderableType:
        from rich.text import Text

        shown = Text(printable(text[-self.SHOWN_CHARS :]).expandtabs(4).strip("\n"))
        wrapped = shown.wrap(self._console, max(1, width))
        return Text("\n").join(wrapped[-max(1, lines) :])

    def _status(self) -> str:
        if self._prompt or self._figures is None:
            return self._prompt
        timings, usage = self._figures.timings, self._figures.usage
        return (
            f"pass {timings.passes + timings.closing_passes}  {usage.completion_tokens} tokens  "
            f"{timings.tokens_per_second:.1f} tokens/s  {usage.context_left} of context left"
        )
