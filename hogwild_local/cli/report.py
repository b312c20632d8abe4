"""What was written, where it stays: on a terminal with the colours of the live view, elsewhere as it is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..workers.transcript import Transcript
from .ending import figures, last_lines
from .frame import style_of
from .terminal import printable

if TYPE_CHECKING:
    from rich.console import Console


def report(console: Console, transcript: Transcript, error: BaseException | None, of_turn: bool) -> None:
    """A run that has ended. error: what ended it; of_turn: the run is one of several, of which only the reply and the
    end are shown."""
    if not of_turn:
        report_thoughts(console, transcript)
    if transcript.reply and not of_turn:
        _line(console, "Reply", "bold")
    if transcript.reply:
        _line(console, f"{transcript.reply.strip()}\n")
    for line in last_lines(transcript, error, of_turn):
        _line(console, line, "dim" if line == figures(transcript, of_turn) else "")


def report_thoughts(console: Console, transcript: Transcript) -> None:
    """All steps, and the finisher."""
    styles = {name: style_of(index) for index, name in enumerate(transcript.workers)}
    for title, text in transcript.parts:
        _line(console, title, styles.get(title.rpartition(", step ")[0], "bold"))
        _line(console, f"{text}\n")


def _line(console: Console, text: str, style: str = "") -> None:
    shown = printable(text)
    console.print(shown, style=style, markup=False, highlight=False, emoji=False, soft_wrap=not console.is_terminal)
