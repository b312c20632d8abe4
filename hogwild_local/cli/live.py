"""A run on a terminal: the whole screen while it goes on, and then, where all text stays, what was written."""

from __future__ import annotations

import contextlib
import io
import sys
import threading
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from .. import events as ev
from ..errors import HogwildError
from ..workers.run import Run
from .display import Output
from .frame import Part, frame, n_hidden, style_of
from .heard import heard
from .keyboard import Keyboard
from .progress import Bar, Speed
from .report import report
from .suspension import Suspension
from .terminal import note, printable

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

SHOWN_STEPS = 100
"""No screen shows more of those that are finished."""


HINT = "Type to the workers: a line is said to all, @NAME ... to one; /add NAME, /stop NAME; Ctrl+C"
"""What nobody would guess, where nothing was typed yet."""


class LiveOutput(Output):
    """What is finished above, what everybody is writing side by side below it, a status line at the bottom; the reply
    takes the workers' place. What is typed meanwhile stands in the last line."""

    def __init__(self, run: Run, console: Console, of_turn: bool = False) -> None:
        """of_turn: the run is one of several; of its end, the reply and the figures are shown."""
        from rich.live import Live

        super().__init__()
        self._run, self._console, self._of_turn = run, console, of_turn
        self._keyboard, self._notice = Keyboard(self._heard), ""
        self._styles: dict[str, str] = {}
        self._notes: dict[str, str] = {}
        self._steps: dict[str, str] = {}
        for name in run.workers:
            self._join(name)
        self._done: deque[Part] = deque(maxlen=SHOWN_STEPS)
        self._finisher: str | None = None
        self._reply: str | None = None
        self._usage: ev.Usage | None = None
        self._bar, self._speed, self._n_pass = Bar(), Speed(), 0
        self._lock = threading.Lock()
        self._screen, self._suspension = contextlib.ExitStack(), Suspension()
        # Drawn by a thread of its own, fifteen times a second: showing costs the run next to nothing, and a terminal
        # that has changed its size is filled anew. Its other screen keeps no broken lines of what was larger.
        self._live = Live(
            get_renderable=self.render, console=console, refresh_per_second=15, screen=True, redirect_stderr=False
        )

    def __enter__(self) -> LiveOutput:
        self._suspension.__enter__()
        self._take_screen()
        return self

    def _take_screen(self) -> None:
        self._screen.enter_context(_notes_held())
        self._screen.callback(self._live.stop)
        # In a thread that Ctrl+C does not meet: what has begun half can't be stopped.
        with ThreadPoolExecutor(1) as pool:
            pool.submit(self._live.start).result()
        self._screen.enter_context(self._keyboard)

    def feed(self, event: ev.Event) -> None:
        super().feed(event)
        if self._suspension.asked:
            self._screen.close()
            if self._suspension.now():
                self._take_screen()

    @property
    def typed(self) -> str:
        """What was typed, and not entered yet."""
        return self._keyboard.typed

    def close(self, error: BaseException | None = None) -> None:
        self._screen.close()
        self._suspension.__exit__()
        report(self._console, self.transcript, error, self._of_turn)

    def _join(self, worker: str) -> None:
        self._styles[worker] = style_of(len(self._styles))
        self._notes[worker] = self._steps[worker] = ""

    def _heard(self, line: str) -> bool:
        try:
            self._notice = heard(self._run, line)
        except HogwildError as error:
            self._notice = str(error)
            return False
        return True

    def ranks(self, progress: tuple[list[int], int]) -> None:
        """With run-ahead: the layers that the ranks have reached, and how many there are."""
        layers, n_layers = progress
        with self._lock:
            self._bar.set(sum(layers) + len(layers), n_layers * len(layers), "layers")

    def _show(self, event: ev.Event) -> None:
        with self._lock:
            self._take(event)

    def _take(self, event: ev.Event) -> None:
        match event:
            case ev.RunQueued():
                self._bar.wait(f"waiting for {event.position} other run{'s' if event.position > 1 else ''}")
            case ev.PromptProgress():
                self._bar.set(event.done, event.total, "tokens")
            case ev.StepStarted():
                self._notes[event.worker] = f"step {event.step}"
                self._steps[event.worker] = event.text.lstrip()
            case ev.Token(worker=None):
                self._finisher = (self._finisher or "") + event.text
            case ev.Token(worker=str() as worker):
                self._steps[worker] += event.text
            case ev.StepEnded():
                self._done.append(Part(event.worker, event.text, self._styles[event.worker]))
                self._steps[event.worker] = ""
            case ev.WorkerJoined():
                self._join(event.worker)
            case ev.Said():
                self._done.append(Part("You", event.shown, "bold"))
                self._notice = ""
            case ev.NotSaid() | ev.WorkerRefused():
                self._notice = event.message
            case ev.WorkerFinished():
                self._notes[event.worker] = f"[{event.reason}]"
            case ev.FinisherStarted():
                self._finisher = event.text.lstrip()
            case ev.ReplyStarted():
                self._reply = ""
            case ev.ReplyToken():
                self._reply = (self._reply or "") + event.text
            case ev.PassEnded():
                self._n_pass, self._usage = event.n_pass, event.usage
                self._speed.count(event.usage.completion_tokens)

    def render(self) -> RenderableType:
        """The frame as it is now, for the console's present size."""
        with self._lock:
            done = list(self._done) + ([] if self._finisher is None else [Part("finisher", self._finisher, "bold")])
            cells = [Part(name, text, self._styles[name], self._notes[name]) for name, text in self._steps.items()]
            bottom = self._bottom()
            reply = self._reply
        if reply is not None:
            cells = [Part("Reply", reply, "bold")]
        return frame(done, cells, bottom, self._console)

    def _bottom(self) -> list[RenderableType]:
        from rich.text import Text

        typed = f"> {self.typed}" if self.typed else ""
        lines = [(line, "") for line in (self._notice, typed) if line]
        if not lines and self._keyboard.hears and self._reply is None:
            lines = [(HINT, "dim")]
        below = [Text(printable(line), no_wrap=True, overflow="ellipsis", style=style) for line, style in lines]
        return [self._status(1 + len(below)), *below]

    def _status(self, n_lines: int) -> RenderableType:
        """n_lines: what it is one of, at the bottom."""
        from rich.text import Text

        if self._usage is None:
            return self._bar.render()
        width, height = self._console.size
        hidden = 0 if self._reply is not None else n_hidden(len(self._steps), width, height - n_lines)
        parts = [
            f"pass {self._n_pass}",
            f"{self._usage.completion_tokens} tokens",
            f"{self._speed.now():.1f} tokens/s",
            f"{self._usage.context_left} of context left",
            *([f"{hidden} workers do not fit"] if hidden else []),
        ]
        return Text("  ".join(parts), no_wrap=True, overflow="ellipsis", style="reverse")


@contextlib.contextmanager
def _notes_held() -> Iterator[None]:
    """What is said on standard error meanwhile would be lost with the screen: it is said after it."""
    if not sys.stderr.isatty():
        yield
        return
    held = io.StringIO()
    try:
        with contextlib.redirect_stderr(held):
            yield
    finally:
        note(held.getvalue(), end="")
